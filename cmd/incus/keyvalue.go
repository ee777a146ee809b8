package main

import (
	"fmt"
	"io"
	"strings"
)

// keyValues reads the arguments of a set command: key=value, several times, or one
// pair of key and value in the old way. A value of "-" is read from stdin.
func (a *app) keyValues(args []string) (map[string]string, error) {
	if len(args) == 2 && !strings.Contains(args[0], "=") {
		a.warn("the “<key> <value>” syntax is deprecated; please switch to the “<key>=<value>” syntax")
		args = []string{args[0] + "=" + args[1]}
	}
	values := make(map[string]string, len(args))
	for _, arg := range args {
		key, value, found := strings.Cut(arg, "=")
		if !found || key == "" {
			return nil, fmt.Errorf("Invalid key=value configuration: %s", arg)
		}
		if value == "-" && !a.stdinTerminal {
			data, err := io.ReadAll(a.stdin)
			if err != nil {
				return nil, fmt.Errorf("read value of %s: %w", key, err)
			}
			value = strings.TrimSuffix(string(data), "\n")
		}
		values[key] = value
	}
	return values, nil
}
