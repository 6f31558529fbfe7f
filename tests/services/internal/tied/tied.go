// Package tied ends a process when the one that started it is gone, however that one ended.
package tied

import (
	"io"
	"os"
)

// ToParent ends this process when its standard input ends, if GOPULSE_TIED is set. Whoever sets it
// holds the other end of a pipe and never writes.
func ToParent() {
	if os.Getenv("GOPULSE_TIED") == "" {
		return
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
}
