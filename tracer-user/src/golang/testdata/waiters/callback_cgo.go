//go:build cgo

package main

import "C"

//export callBack
func callBack() { receive(never) }
