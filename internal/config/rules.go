package config

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Texts of these rules are those of the protocol, where it has one.

// integer makes a rule of a condition on a number.
func integer(ok func(n int64) bool, otherwise string) func(string) error {
	return func(value string) error {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return errors.New("invalid integer")
		}
		if !ok(n) {
			return errors.New(otherwise)
		}
		return nil
	}
}

func between(low, high int64) func(string) error {
	return integer(func(n int64) bool { return n >= low && n <= high }, fmt.Sprintf("Value must be between %d and %d", low, high))
}

// longest is the longest time that a key can stand for: more than anyone means, and
// far from where a time.Duration ends.
const longest = 100 * 365 * 24 * time.Hour

// maxUnits is the largest number of units.
func maxUnits(unit time.Duration) int64 {
	if unit <= 0 {
		return 0
	}
	return int64(longest / unit)
}

// atMost is the rule for a time that may be 0.
func atMost(unit time.Duration) func(string) error { return between(0, maxUnits(unit)) }

var (
	maxVotersRule    = integer(func(n int64) bool { return n >= 3 && n%2 == 1 }, "Value must be an odd number equal to or higher than 3")
	imageReplicaRule = integer(func(n int64) bool { return n >= 1 || n == -1 }, "Invalid value for image replica count")
)

func offlineRule(value string) error {
	if err := integer(func(n int64) bool { return n > 10 }, "Value must be greater than '10'")(value); err != nil {
		return err
	}
	return atMost(time.Second)(value)
}

func oneOf(allowed ...string) func(string) error {
	return func(value string) error {
		if !slices.Contains(allowed, value) {
			return fmt.Errorf("Value must be one of %s", strings.Join(allowed, ", "))
		}
		return nil
	}
}

func listOf(rule func(string) error) func(string) error {
	return func(value string) error {
		for part := range strings.SplitSeq(value, ",") {
			if err := rule(strings.TrimSpace(part)); err != nil {
				return err
			}
		}
		return nil
	}
}

func expiryRule(value string) error {
	_, err := Expiry(value, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	return err
}

func ipv4Rule(value string) error {
	if ip, err := netip.ParseAddr(value); err != nil || !ip.Is4() {
		return fmt.Errorf("Not an IPv4 address %q", value)
	}
	return nil
}

func volumeRule(value string) error {
	pool, volume, ok := strings.Cut(value, "/")
	if !ok || pool == "" || volume == "" || strings.Contains(volume, "/") {
		return errors.New("Value must have the form POOL/VOLUME")
	}
	return nil
}

// headerRule allows what can stand in one line of an HTTP header.
func headerRule(value string) error {
	if strings.IndexFunc(value, unicode.IsControl) >= 0 {
		return errors.New("Value cannot contain control characters")
	}
	return nil
}

var macPattern = regexp.MustCompile(`^[0-9a-fA-FxX]{2}(:[0-9a-fA-FxX]{2}){5}$`)

func macPatternRule(value string) error {
	if !macPattern.MatchString(value) {
		return errors.New("Value must be a MAC address in which x stands for any digit")
	}
	return nil
}

// compressors are the programs that upstream knows; options may follow the name.
var compressors = []string{"bzip2", "gzip", "lz4", "lzma", "none", "pigz", "pzstd", "squashfs", "tar2sqfs", "xz", "zstd"}

func compressorRule(value string) error {
	fields := strings.Fields(value)
	if len(fields) == 0 {
		return oneOf(compressors...)(value)
	}
	return oneOf(compressors...)(fields[0])
}

// architectures are the kernel's names and the usual aliases.
var architectures = []string{
	"aarch64", "armv6l", "armv7l", "armv8l", "i686", "loongarch64", "mips", "mips64", "ppc", "ppc64", "ppc64le",
	"riscv32", "riscv64", "s390x", "x86_64",
	"amd64", "arm64", "armel", "armhf", "i386", "loong64", "powerpc", "powerpc64", "ppc64el",
}

// listen is the rule for an address to listen on.
func listen(o AddressOptions) func(string) error {
	return func(value string) error { return ValidateListenAddress(value, o) }
}

var anyListener = listen(AddressOptions{AllowDNS: true, AllowWildcard: true})

// passwordRule refuses passwords that nobody could type.
func passwordRule(value string) error {
	if len(value) > 256 || strings.ContainsFunc(value, unicode.IsControl) {
		return errors.New("a password has at most 256 bytes and no control characters")
	}
	return nil
}
