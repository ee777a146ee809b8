package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// preseedKeys are the keys that a preseed may have at any level.
var preseedKeys = strings.Fields("config storage_pools storage_volumes networks profiles projects certificates cluster_groups cluster " +
	"name driver description type content_type source project pool devices members " +
	"enabled server_name server_address cluster_address cluster_certificate cluster_certificate_path cluster_token cluster_password member_config entity key value restricted certificate")

var unknownKey = regexp.MustCompile(`unknown key "([^"]*)"`)

// suggested adds the nearest known keys to an error about unknown ones.
func suggested(err error) error {
	text := unknownKey.ReplaceAllStringFunc(err.Error(), func(match string) string {
		best, least := "", 4
		for _, key := range preseedKeys {
			if d := distance(unknownKey.FindStringSubmatch(match)[1], key); d < least {
				best, least = key, d
			}
		}
		if best == "" {
			return match
		}
		return fmt.Sprintf("%s (did you mean %q?)", match, best)
	})
	return errors.New(text)
}

// distance is how many letters have to be changed to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before, row[j+1] = row[j+1], min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
