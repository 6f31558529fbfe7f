package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// publish opens a connection for one message.
func publish(broker string) error {
	conn, err := net.Dial("tcp", broker)
	if err != nil {
		return err
	}
	defer conn.Close()
	return tell(conn)
}

// forget does the same, and does not close it.
func forget(broker string) error {
	conn, err := net.Dial("tcp", broker)
	if err != nil {
		return err
	}
	forgotten.Lock()
	forgotten.conns = append(forgotten.conns, conn)
	forgotten.Unlock()
	return tell(conn)
}

var forgotten struct {
	sync.Mutex
	conns []net.Conn
}

// A Publisher opens one connection for all messages.
type Publisher struct {
	lock sync.Mutex
	conn net.Conn
}

// Publish sends a message.
func (p *Publisher) Publish(broker string) error {
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.conn == nil {
		conn, err := net.Dial("tcp", broker)
		if err != nil {
			return err
		}
		p.conn = conn
	}
	return tell(p.conn)
}

func tell(conn net.Conn) error {
	if _, err := fmt.Fprintln(conn, "something happened"); err != nil {
		return err
	}
	_, err := bufio.NewReader(conn).ReadString('\n')
	return err
}

// post makes a client for one message.
func post(url string) error {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
