// Command threads keeps the scheduler busy in known ways: threads that spin, sleep, hand each other the
// CPU, live for a millisecond, or call exec.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"gopulse.test/services/internal/tied"
)

func main() {
	spin := flag.Int("spin", 0, "threads that never stop")
	sleep := flag.Int("sleep", 0, "threads that sleep a millisecond at a time")
	pipes := flag.Int("pipes", 0, "pairs of threads that wake each other by two pipes")
	brief := flag.Int("brief", 0, "threads that live for a millisecond, one after the other, from SIGCONT on")
	exec := flag.Bool("exec", false, "call exec from a thread that is not the first, at SIGCONT, and spin")
	flag.Parse()
	tied.ToParent()
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)

	// The first thread is nobody else's, so that -exec is called from another one.
	runtime.LockOSThread()
	for range *spin {
		go onThread(forever)
	}
	for range *sleep {
		go onThread(naps)
	}
	for range *pipes {
		a, b := pipe(), pipe()
		go onThread(func() { pass(a[0], b[1], nil) })
		go onThread(func() { pass(b[0], a[1], []byte{1}) })
	}
	time.Sleep(50 * time.Millisecond) // the threads are there
	fmt.Printf("ready %d\n", os.Getpid())
	<-continued
	if *exec {
		go onThread(func() {
			fmt.Printf("exec %d\n", syscall.Gettid())
			path, _ := os.Executable()
			panic(syscall.Exec(path, []string{"threads", "-spin", "1"}, os.Environ()))
		})
	}
	for range *brief {
		briefly()
	}
	fmt.Println("done")
	select {}
}

// onThread runs work on a thread of its own, which ends with it.
func onThread(work func()) {
	runtime.LockOSThread()
	work()
}

func forever() {
	for {
	}
}

func naps() {
	millisecond := syscall.NsecToTimespec(int64(time.Millisecond))
	for {
		syscall.Nanosleep(&millisecond, nil)
	}
}

func briefly() {
	var ended sync.WaitGroup
	ended.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fmt.Printf("thread %d\n", syscall.Gettid())
		for end := time.Now().Add(time.Millisecond / 2); time.Now().Before(end); {
		}
		nap := syscall.NsecToTimespec(int64(time.Millisecond / 2))
		syscall.Nanosleep(&nap, nil)
	})
	ended.Wait()
}

func pipe() [2]int {
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		panic(err)
	}
	return ends
}

// pass hands every byte that it reads on, and begins with first.
func pass(from, to int, first []byte) {
	byte := make([]byte, 1)
	if first != nil {
		syscall.Write(to, first)
	}
	for {
		if n, err := syscall.Read(from, byte); n == 1 {
			syscall.Write(to, byte)
		} else if err != syscall.EINTR {
			return
		}
	}
}
