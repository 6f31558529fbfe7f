package bubbles

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestBubbles leaves the dump of goroutines in two bubbles of synctest, and of some outside.
func TestBubbles(t *testing.T) {
	var ready atomic.Int32
	var left sync.WaitGroup
	left.Add(2)
	write := make(chan bool)
	outside := make(chan int)
	for i := 0; i < 3; i++ {
		go func() { <-outside }()
	}
	for i := 0; i < 2; i++ {
		go func() {
			defer left.Done()
			bubble(t, func() {
				inside, over := make(chan int), make(chan bool)
				for i := 0; i < 4; i++ {
					go func() { <-inside }()
				}
				go func() {
					select {
					case <-inside:
					case <-over:
					}
				}()
				go func() { time.Sleep(time.Second) }()
				go func() {
					var group sync.WaitGroup
					group.Add(1)
					go func() { <-over; group.Done() }()
					group.Wait()
				}()
				ready.Add(1)
				<-write
				close(inside)
				close(over)
			})
		}()
	}
	for ready.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	text := make([]byte, 1<<20)
	text = text[:runtime.Stack(text, true)]
	count := runtime.NumGoroutine()
	os.WriteFile(os.Getenv("DUMP"), text, 0o644)
	fmt.Println("counted", count)
	close(write)
	left.Wait()
}
