// Command mill computes for every request, for as much CPU time as it is told.
package main

import (
	"flag"
	"io"
	"net/http"
	"runtime"
	"syscall"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

// rusageThread is RUSAGE_THREAD of getrusage(2), which package syscall does not name.
const rusageThread = 1

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	work := flag.Duration("work", 10*time.Millisecond, "CPU time that a request takes")
	flag.Parse()
	tied.ToParent()

	serve.HTTP(*address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grind(*work)
		io.WriteString(w, "ground\n")
	}))
}

// grind computes until the thread has had so much CPU time, however long that takes.
func grind(work time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for began := used(); used()-began < work; {
		turn()
	}
}

// turn takes some ten microseconds.
func turn() (sum uint32) {
	for n := range uint32(1 << 14) {
		sum = sum*31 + n
	}
	return sum
}

func used() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(rusageThread, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
