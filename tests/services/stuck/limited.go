package main

import "net"

// Limited accepts a number of connections, and then waits for a place that is never given back.
type Limited struct {
	net.Listener
	left int
}

// Accept takes the next connection while there is a place.
func (l *Limited) Accept() (net.Conn, error) {
	if l.left == 0 {
		places := make(chan struct{})
		places <- struct{}{}
	}
	l.left--
	return l.Listener.Accept()
}
