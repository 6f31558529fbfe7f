package main

import "time"

// crunch computes until it has used so much time of its own: of a CPU that it shares it uses as much,
// and takes longer.
//
//go:noinline
func crunch(work time.Duration) uint64 {
	sum := uint64(14695981039346656037)
	for used := time.Duration(0); used < work; {
		began := time.Now()
		for n := uint64(0); n < 20_000; n++ {
			sum = (sum ^ n) * 1099511628211
		}
		// A step takes some 20 µs. One that took much longer had lost the CPU meanwhile.
		used += min(time.Since(began), 100*time.Microsecond)
	}
	return sum
}
