package main

import (
	"sync"
	"sync/atomic"
	"time"
)

// Watcher looks at every session now and then, and never learns that one was closed.
type Watcher struct {
	watch func(*session)
	every time.Duration
	all   sync.Map
}

type session struct {
	seen atomic.Int64
}

// NewWatcher watches in one of four ways.
func NewWatcher(how string, every time.Duration) *Watcher {
	watcher := &Watcher{every: every}
	switch how {
	case "timer":
		watcher.watch = watcher.byTimer
	case "ticker":
		watcher.watch = func(s *session) { go watcher.byTicker(s) }
	case "after":
		watcher.watch = func(s *session) { go watcher.byAfter(s) }
	default:
		watcher.watch = func(s *session) { watcher.all.Store(s, true) }
		go watcher.sweep()
	}
	return watcher
}

// Open begins to watch another session.
func (w *Watcher) Open() {
	w.watch(new(session))
}

// byTimer has a timer for each session, which it sets again and again.
func (w *Watcher) byTimer(s *session) {
	var timer *time.Timer
	var lock sync.Mutex
	lock.Lock()
	defer lock.Unlock()
	timer = time.AfterFunc(w.every, func() {
		lock.Lock()
		defer lock.Unlock()
		s.look()
		timer.Reset(w.every)
	})
}

// byTicker has a ticker and a goroutine for each session, and stops neither.
func (w *Watcher) byTicker(s *session) {
	ticker := time.NewTicker(w.every)
	for range ticker.C {
		s.look()
	}
}

// byAfter has a goroutine for each session, and makes a timer each time round.
func (w *Watcher) byAfter(s *session) {
	closed := make(chan struct{})
	for {
		select {
		case <-closed:
			return
		case <-time.After(w.every):
			s.look()
		}
	}
}

// sweep looks at all of them with one ticker.
func (w *Watcher) sweep() {
	for range time.Tick(w.every) {
		w.all.Range(func(s, _ any) bool {
			s.(*session).look()
			return true
		})
	}
}

func (s *session) look() {
	s.seen.Add(1)
}
