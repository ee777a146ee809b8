// Command incusd is the clustering daemon.
//
// It holds no logic of its own: it reads flags and environment, starts package daemon,
// and turns signals into its end.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := rootCommand().Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		os.Exit(1)
	}
}
