// Command crowd starts goroutines that wait for all kinds of things, and leaves profiles and dumps of
// them: in the directory that it is given, and by the panic or the SIGQUIT that ends it.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"
)

type store struct{ lock sync.Mutex }

func (s *store) save(key string, value []byte) {
	s.lock.Lock()
	defer s.lock.Unlock()
}

func receive[T any](from chan T) T { return <-from }

func deep(left int, wait chan int) int {
	if left == 0 {
		return <-wait
	}
	return deep(left-1, wait) + 1
}

func start(work func()) { go work() }

func main() {
	s := &store{}
	s.lock.Lock()
	quiet, full := make(chan int), make(chan int)
	for i := 0; i < 40; i++ {
		i := i
		start(func() { s.save(fmt.Sprint(i), []byte("x")) })
	}
	for i := 0; i < 20; i++ {
		go receive(quiet)
	}
	for i := 0; i < 3; i++ {
		go deep(150, quiet)
	}
	go func() { runtime.LockOSThread(); <-quiet }()
	go func() { select {} }()
	go func() { var none chan int; <-none }()
	go func() { time.Sleep(time.Hour) }()
	go func() { var group sync.WaitGroup; group.Add(1); group.Wait() }()
	for i := 0; i < 4; i++ {
		i := i
		go pprof.Do(context.Background(), pprof.Labels("k", fmt.Sprint("v", i%2), "req", "a [b]: \"c\", 5 minutes"), func(context.Context) {
			full <- i
		})
	}
	go func() {
		for {
			runtime.Gosched()
		}
	}()
	time.Sleep(300 * time.Millisecond)
	write := func(name string, debug int) {
		var buffer bytes.Buffer
		pprof.Lookup("goroutine").WriteTo(&buffer, debug)
		os.WriteFile(os.Args[1]+"/"+name, buffer.Bytes(), 0o644)
	}
	write("debug2.txt", 2)
	write("debug1.txt", 1)
	write("debug0.pb.gz", 0)
	os.WriteFile(os.Args[1]+"/count", []byte(fmt.Sprintln(runtime.NumGoroutine())), 0o644)
	if len(os.Args) > 2 && os.Args[2] == "panic" {
		panic("boom")
	}
	if len(os.Args) > 2 && os.Args[2] == "wait" {
		time.Sleep(time.Minute)
	}
}
