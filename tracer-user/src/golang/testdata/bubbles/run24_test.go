//go:build !go1.25

package bubbles

import (
	"testing"
	"testing/synctest"
)

func bubble(_ *testing.T, work func()) { synctest.Run(work) }
