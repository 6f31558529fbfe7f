// Waiters starts goroutines that wait in the ways services wait, and answers commands on standard
// input: "dump" prints all goroutines as the runtime tells them, "gc" collects garbage (so that waiting
// times are counted), "more N" starts N more that wait on a channel, "timers N" starts N timers, "procs N"
// sets GOMAXPROCS, "limits P M" sets GOGC and GOMEMLIMIT, and "runtime" prints what the runtime says of
// itself.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	never  = make(chan int)
	locked sync.Mutex
	group  sync.WaitGroup
	start  sync.WaitGroup
)

//go:noinline
func receive(c chan int) int { return <-c }

func receiveInlined(c chan int) int { return <-c }

type sender interface{ send(int) }

type channel chan int

func (c channel) send(value int) { c <- value }

func deep(depth int) int {
	if depth == 0 {
		return receive(never)
	}
	return deep(depth-1) + 1
}

func generic[T any](c chan T) T { return <-c }

type ledger struct {
	name  [40]byte
	lock  sync.Mutex
	pages sync.RWMutex
}

// hold never gives back what it locks.
//
//go:noinline
func (l *ledger) hold() int {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.pages.Lock()
	defer l.pages.Unlock()
	return receive(never)
}

//go:noinline
func (l *ledger) count() {
	l.lock.Lock()
	l.lock.Unlock()
}

//go:noinline
func (l *ledger) read() {
	l.pages.RLock()
	l.pages.RUnlock()
}

// labelled starts goroutines with labels of all kinds.
func labelled() {
	with := func(wait func(), pairs ...string) {
		spawn(func() {
			pprof.Do(context.Background(), pprof.Labels(pairs...), func(context.Context) { wait() })
		})
	}
	wait := func() { receive(never) }
	with(wait, "key", "value")
	with(wait, "key", "value")
	with(wait, "empty", "", "ж", "\x00\n\"ü\\")
	with(wait, "long", strings.Repeat("0123456789", 30))
	// Enough for a map to grow.
	for _, count := range []int{8, 9, 14, 27, 53} {
		var pairs []string
		for number := range make([]struct{}, count) {
			pairs = append(pairs, fmt.Sprint("key", number), fmt.Sprint(number))
		}
		with(wait, pairs...)
	}
	// Those it starts inherit them.
	with(func() { spawn(wait); wait() }, "parent", "yes")
	// And one label more.
	spawn(func() {
		outer := pprof.WithLabels(context.Background(), pprof.Labels("a", "1", "b", "2"))
		pprof.SetGoroutineLabels(pprof.WithLabels(outer, pprof.Labels("b", "3", "c", "4")))
		wait()
	})
	// None any more.
	spawn(func() {
		pprof.Do(context.Background(), pprof.Labels("gone", "yes"), func(context.Context) {})
		wait()
	})
}

func spawn(wait func()) {
	start.Add(1)
	go func() {
		start.Done()
		wait()
	}()
}

func main() {
	locked.Lock()
	group.Add(1)
	var s sender = channel(make(chan int))
	spawn(func() { receive(never) })
	spawn(func() { receiveInlined(never) })
	spawn(func() { generic(never) })
	spawn(func() { s.send(1) })
	spawn(func() { deep(40) })
	spawn(func() { deep(300) })
	spawn(func() { locked.Lock() })
	spawn(func() { group.Wait() })
	spawn(func() { time.Sleep(time.Hour) })
	spawn(func() {
		select {
		case <-never:
		case <-time.After(time.Hour):
		}
	})
	spawn(func() { select {} })
	spawn(func() {
		labels := pprof.Labels("k", "v", "request", `a "b]: {c}, 5 minutes`)
		pprof.Do(context.Background(), labels, func(context.Context) { receive(never) })
	})
	labelled()
	spawn(func() {
		defer func() {
			recover()
			receive(never)
		}()
		panic("on purpose")
	})
	spawn(func() {
		var pipe [2]int
		syscall.Pipe(pipe[:])
		syscall.Read(pipe[0], make([]byte, 1))
	})
	books := new(ledger)
	spawn(func() { books.hold() })
	time.Sleep(50 * time.Millisecond)
	spawn(func() { books.count() })
	spawn(func() { books.count() })
	spawn(func() { books.read() })
	foreign()
	go s.send(2)
	time.AfterFunc(0, func() { receive(never) })

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, nil)
	if answer, err := http.Get("http://" + listener.Addr().String() + "/"); err == nil {
		answer.Body.Close()
	}
	start.Wait()
	time.Sleep(50 * time.Millisecond)
	fmt.Println("ready", listener.Addr())

	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		command, argument, _ := strings.Cut(commands.Text(), " ")
		switch command {
		case "dump":
			text := make([]byte, 16<<20)
			text = text[:runtime.Stack(text, true)]
			fmt.Println(len(text))
			os.Stdout.Write(text)
		case "gc":
			runtime.GC()
			fmt.Println("collected")
		case "more":
			var count int
			fmt.Sscan(argument, &count)
			for range make([]struct{}, count) {
				spawn(func() { receive(never) })
			}
			start.Wait()
			time.Sleep(200 * time.Millisecond)
			fmt.Println("started")
		case "timers":
			var count int
			fmt.Sscan(argument, &count)
			for range make([]struct{}, count) {
				time.AfterFunc(time.Hour, func() {})
			}
			fmt.Println("started")
		case "procs":
			var count int
			fmt.Sscan(argument, &count)
			runtime.GOMAXPROCS(count)
			fmt.Println("set")
		case "limits":
			var percent int
			var limit int64
			fmt.Sscan(argument, &percent, &limit)
			debug.SetGCPercent(percent)
			debug.SetMemoryLimit(limit)
			fmt.Println("set")
		case "runtime":
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			fmt.Println(runtime.GOMAXPROCS(0), stats.NumGC, stats.HeapAlloc)
		}
	}
}
