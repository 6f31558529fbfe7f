package main

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// report starts a goroutine that hands over its result to nobody: the channel has no room, and whoever
// was to receive has gone.
func report() {
	results := make(chan int)
	go func() {
		results <- compute()
	}()
}

func compute() int { return 42 }

// gather waits for workers of which one forgets to say that it is done.
func gather() {
	var workers sync.WaitGroup
	workers.Add(2)
	go work(&workers, true)
	go work(&workers, false)
	go func() {
		workers.Wait()
	}()
}

func work(workers *sync.WaitGroup, says bool) {
	if says {
		workers.Done()
	}
}

// stream sends what there is, and does not close the channel.
func stream() {
	rows := make(chan string, 1)
	go consume(rows)
	rows <- "row"
}

func consume(rows chan string) {
	for row := range rows {
		_ = row
	}
}

// poll looks for news again and again, for ever: nobody tells it to stop.
func poll(stop chan string, pause time.Duration) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(pause):
			compute()
		}
	}
}

// forget asks and leaves the body of the answer open.
func forget(url string) {
	http.Get(url)
}

// fetch asks and reads the answer.
func fetch(url string) {
	answer, err := http.Get(url)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, answer.Body)
}

// A Pool starts a worker for each job until it has enough of them.
type Pool struct {
	lock    sync.Mutex
	jobs    chan func()
	workers int
	room    int
}

// Do lets a worker do a job.
func (p *Pool) Do(job func()) {
	p.lock.Lock()
	if p.workers < p.room {
		p.workers++
		go p.work()
	}
	p.lock.Unlock()
	p.jobs <- job
}

func (p *Pool) work() {
	for job := range p.jobs {
		job()
	}
}
