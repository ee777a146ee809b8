package config

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

var errExpiry = errors.New("Invalid expiry expression")

// maxYears is the longest expiry: later dates cannot be told apart from never, and
// beyond the year 9999 they cannot be written down.
const maxYears = 1000

// Expiry adds an expression such as "1d 12H" to from, by the calendar: a month after
// January 31 is March 2 or 3, as time.AddDate counts. Units are S, M, H, d, w, m and y
// (seconds, minutes, hours, days, weeks, months, years), each at most once. The blank
// expression means never: the zero time.
func Expiry(expr string, from time.Time) (time.Time, error) {
	fields := strings.Fields(expr)
	if len(fields) == 0 {
		return time.Time{}, nil
	}
	counts := map[byte]int{}
	for _, field := range fields {
		unit := field[len(field)-1]
		n, err := expiryCount(field[:len(field)-1])
		if _, twice := counts[unit]; err != nil || twice || strings.IndexByte("SMHdwmy", unit) < 0 {
			return time.Time{}, errExpiry
		}
		counts[unit] = n
	}
	seconds := int64(counts['S']) + int64(counts['M'])*60 + int64(counts['H'])*3600
	days := counts['d'] + 7*counts['w'] + int(seconds/86400) // whole days apart: a Duration ends after 292 years
	expires := from.AddDate(counts['y'], counts['m'], days).Add(time.Duration(seconds%86400) * time.Second)
	if expires.Year()-from.Year() > maxYears {
		return time.Time{}, errExpiry
	}
	return expires, nil
}

// expiryCount reads a count of at most nine digits, which no sum of them overflows.
func expiryCount(digits string) (int, error) {
	if len(digits) > 9 || strings.Trim(digits, "0123456789") != "" {
		return 0, errExpiry
	}
	return strconv.Atoi(digits)
}
