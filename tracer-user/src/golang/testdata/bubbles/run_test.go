//go:build go1.25

package bubbles

import (
	"testing"
	"testing/synctest"
)

func bubble(t *testing.T, work func()) { synctest.Test(t, func(*testing.T) { work() }) }
