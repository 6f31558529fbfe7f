package main

/*
#include <errno.h>
#include <unistd.h>
*/
import "C"

import (
	"errors"
	"io"
	"net"
	"syscall"
	"unsafe"
)

// reader reads the connection by a call out of C, where the thread is on the stack of no goroutine.
func (c *Conn) reader() io.Reader {
	raw, err := c.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return c.Conn
	}
	return inC{raw}
}

type inC struct{ raw syscall.RawConn }

func (c inC) Read(into []byte) (read int, err error) {
	waited := c.raw.Read(func(fd uintptr) bool {
		var n C.ssize_t
		n, err = C.read(C.int(fd), unsafe.Pointer(&into[0]), C.size_t(len(into)))
		read = max(0, int(n))
		return n >= 0 || !errors.Is(err, syscall.EAGAIN)
	})
	if waited != nil {
		return 0, waited
	}
	if read > 0 {
		return read, nil
	}
	if err == nil {
		err = io.EOF
	}
	return 0, err
}
