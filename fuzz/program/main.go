// Program is what fuzz targets take for a service: small, so that it can be damaged often.
package main

import "sync"

//go:noinline
func wait(held *sync.Mutex) { held.Lock() }

func main() {
	var held sync.Mutex
	held.Lock()
	wait(&held)
}
