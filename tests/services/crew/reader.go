//go:build !cgo

package main

import "io"

// reader reads the connection as Go does.
func (c *Conn) reader() io.Reader {
	return c.Conn
}
