package table

import (
	"cmp"
	"strings"
)

// compareRows orders rows by their first cells that differ; an empty cell comes
// after all others.
func compareRows(a, b []string) int {
	for i := range a {
		switch {
		case a[i] == b[i]:
		case a[i] == "":
			return 1
		case b[i] == "":
			return -1
		default:
			return Compare(a[i], b[i])
		}
	}
	return 0
}

// Compare orders texts as people count: digits in them as numbers, all else by
// bytes.
func Compare(a, b string) int {
	fullA, fullB := a, b
	for a != "" && b != "" {
		chunkA, chunkB := chunk(a), chunk(b)
		if n := compareChunks(chunkA, chunkB); n != 0 {
			return n
		}
		a, b = a[len(chunkA):], b[len(chunkB):]
	}
	// Equal but for leading zeros: any fixed order will do.
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(fullA, fullB))
}

func compareChunks(a, b string) int {
	if !isDigit(a[0]) || !isDigit(b[0]) {
		return cmp.Compare(a, b)
	}
	// Not as integers: they may be longer than 64 bits.
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// chunk is the longest start of s that is all digits, or has none. s is not empty.
func chunk(s string) string {
	for i := range len(s) {
		if isDigit(s[i]) != isDigit(s[0]) {
			return s[:i]
		}
	}
	return s
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
