//go:build cgo

package main

/*
#include <unistd.h>
extern void callBack(void);
static void nap(void) { for (;;) pause(); }
static void enter(void) { callBack(); }
*/
import "C"

// foreign starts goroutines that wait in C, and in Go that was called from C.
func foreign() {
	spawn(func() { C.nap() })
	spawn(func() { C.enter() })
}
