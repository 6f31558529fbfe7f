// Churn starts and ends goroutines of a few classes as fast as it can, until its standard input is closed;
// then it tells what there was. It is written so that whatever a reader says of a goroutine can be checked:
//
//   - a function's name begins with its class, and every function is called from one place alone (grow from
//     two), so that two frames above each other are either those two or a mistake;
//   - each function waits in one way, which stands at the end of its name;
//   - a class has one goroutine that starts all the others;
//   - each goroutine carries its class and its number as labels, its starter the class alone.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// worker is a goroutine that was.
type worker struct {
	id, number uint64
	class      string
	ended      int64
}

var (
	stop    atomic.Bool
	numbers atomic.Uint64
	running sync.WaitGroup
	lock    sync.Mutex
	workers []worker
	// Hands out what others wait for.
	ticks = make(chan int)
	null  int
)

// id is the one in the first line of its stack.
func id() uint64 {
	var text [64]byte
	words := bytes.Fields(text[:runtime.Stack(text[:], false)])
	id, _ := strconv.ParseUint(string(words[1]), 10, 64)
	return id
}

// monotonic is CLOCK_MONOTONIC, in nanoseconds.
func monotonic() int64 {
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

func ended(class string, number uint64) {
	was := worker{id(), number, class, monotonic()}
	lock.Lock()
	workers = append(workers, was)
	lock.Unlock()
	running.Done()
}

// labelled sets the labels of a worker, and gives its number.
func labelled(class string) uint64 {
	number := numbers.Add(1)
	labels := pprof.Labels("class", class, "number", strconv.FormatUint(number, 10))
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), labels))
	return number
}

func starter(class string, start func()) {
	pprof.Do(context.Background(), pprof.Labels("class", class), func(context.Context) {
		fmt.Println("starter", class, id())
		running.Add(1)
		for turn := 0; !stop.Load(); turn++ {
			// Not more than can run.
			if turn%16 == 15 {
				time.Sleep(time.Millisecond)
			}
			running.Add(1)
			start()
		}
		running.Done()
	})
}

// Two places with frames of one size, one after the other.

//go:noinline
func twinLeft_receive() int { return <-ticks }

//go:noinline
func twinRight_receive() int { return <-ticks }

func twinWork() {
	number := labelled("twin")
	for turn := 0; turn < 20; turn++ {
		twinLeft_receive()
		twinRight_receive()
	}
	ended("twin", number)
}

func twinStart() {
	go twinWork()
}

// System calls from two places with frames of one size.

//go:noinline
func callLeft_syscall(bytes []byte) { syscall.Write(null, bytes) }

//go:noinline
func callRight_syscall(bytes []byte) { syscall.Write(null, bytes) }

func callWork() {
	number := labelled("call")
	piece := make([]byte, 1<<10)
	for turn := 0; turn < 50; turn++ {
		callLeft_syscall(piece)
		callRight_syscall(piece)
	}
	ended("call", number)
}

func callStart() {
	go callWork()
}

// Stacks that grow, so that they move, and shrink when garbage is collected.

//go:noinline
func grow_receive(depth int) int {
	var room [256]byte
	if depth == 0 {
		return <-ticks
	}
	room[depth%len(room)] = byte(depth)
	return grow_receive(depth-1) + int(room[0])
}

func growWork() {
	number := labelled("grow")
	for depth := 0; depth < 64; depth += 7 {
		grow_receive(depth)
		runtime.Gosched()
	}
	ended("grow", number)
}

func growStart() {
	go growWork()
}

// Gone as soon as they are there.

func shortWork() {
	ended("short", labelled("short"))
}

func shortStart() {
	go shortWork()
}

// Garbage, and a change of state with each turn.

var sink []byte

//go:noinline
func sleep_sleep() { time.Sleep(50 * time.Microsecond) }

//go:noinline
func sleepYield_runnable() { runtime.Gosched() }

func sleepWork() {
	number := labelled("sleep")
	for turn := 0; turn < 10; turn++ {
		sleep_sleep()
		sink = make([]byte, 4<<10)
		sleepYield_runnable()
	}
	ended("sleep", number)
}

func sleepStart() {
	go sleepWork()
}

func main() {
	debug.SetGCPercent(20)
	runtime.GOMAXPROCS(4)
	null, _ = syscall.Open("/dev/null", syscall.O_WRONLY, 0)
	go starter("twin", twinStart)
	go starter("call", callStart)
	go starter("grow", growStart)
	go starter("short", shortStart)
	go starter("sleep", sleepStart)
	over := make(chan bool)
	go func() {
		for {
			select {
			case ticks <- 1:
			case <-over:
				return
			}
		}
	}()
	time.Sleep(100 * time.Millisecond)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	stop.Store(true)
	time.Sleep(10 * time.Millisecond)
	running.Wait()
	close(over)
	text := new(bytes.Buffer)
	for _, was := range workers {
		fmt.Fprintln(text, "worker", was.class, was.id, was.number, was.ended)
	}
	os.Stdout.Write(text.Bytes())
}
