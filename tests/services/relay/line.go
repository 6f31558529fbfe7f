package main

import "runtime"

// Line is a row of stages, each of which does a little to a piece and hands it on.
type Line struct {
	first chan piece
}

type piece struct {
	words []string
	count int
	done  chan<- int
}

// NewLine starts the stages.
func NewLine(stages int, bound bool) *Line {
	line := &Line{first: make(chan piece)}
	in := line.first
	for range stages - 1 {
		out := make(chan piece)
		go pass(in, out, bound)
		in = out
	}
	go end(in)
	return line
}

// Count sends a text down the line, so many words at a time, and waits for each piece.
func (l *Line) Count(text []string, size int) (count int) {
	done := make(chan int)
	for len(text) > 0 {
		n := min(size, len(text))
		l.first <- piece{words: text[:n], done: done}
		count += <-done
		text = text[n:]
	}
	return count
}

// pass takes from one stage and hands on to the next.
func pass(in <-chan piece, out chan<- piece, bound bool) {
	if bound {
		runtime.LockOSThread()
	}
	for p := range in {
		for _, word := range p.words {
			p.count += len(word) & 1
		}
		out <- p
	}
}

func end(in <-chan piece) {
	for p := range in {
		p.done <- p.count
	}
}
