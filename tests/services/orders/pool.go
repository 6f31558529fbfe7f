package main

import (
	"bufio"
	"fmt"
	"net"
)

// Pool is a few connections to a database, as database/sql has them: whoever asks writes and reads by
// himself.
type Pool struct {
	address string
	idle    chan *connection
}

type connection struct {
	net.Conn
	lines *bufio.Reader
}

// NewPool makes room for so many connections, and opens none yet.
func NewPool(address string, connections int) *Pool {
	pool := &Pool{address: address, idle: make(chan *connection, connections)}
	for range connections {
		pool.idle <- nil
	}
	return pool
}

// Query waits for a free connection and for the answer.
func (p *Pool) Query(key string) (row string, err error) {
	c := <-p.idle
	defer func() { p.idle <- c }()
	if c == nil {
		dialled, err := net.Dial("tcp", p.address)
		if err != nil {
			return "", err
		}
		c = &connection{dialled, bufio.NewReader(dialled)}
	}
	if _, err := fmt.Fprintln(c, key); err != nil {
		return "", err
	}
	return c.lines.ReadString('\n')
}
