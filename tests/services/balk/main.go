// Command balk holds things up where it is told to, so that a test knows what a tracer must see: it
// reads late, stops reading in the middle, never accepts, or runs out of file descriptors.
//
// A request is 16 digits that say how long the rest of it is, 16 that say how long the response is to
// be, and the rest.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"gopulse.test/services/internal/tied"
)

var (
	beforeRead = flag.Duration("before-read", 0, "how long a connection waits for its first read")
	midRead    = flag.Duration("mid-read", 0, "how long a request waits when half of it is read")
	accepts    = flag.Bool("accept", true, "accept connections")
	files      = flag.Uint64("files", 0, "run out of file descriptors at this many")
)

func main() {
	flag.Parse()
	tied.ToParent()
	if *files > 0 {
		runOut(*files)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening", listener.Addr())
	if !*accepts {
		select {}
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(conn)
	}
}

func serve(conn net.Conn) {
	defer conn.Close()
	time.Sleep(*beforeRead)
	for {
		var lengths [32]byte
		if _, err := io.ReadFull(conn, lengths[:]); err != nil {
			return
		}
		request, response := number(lengths[:16]), number(lengths[16:])
		if !skip(conn, request/2) {
			return
		}
		time.Sleep(*midRead)
		if !skip(conn, request-request/2) {
			return
		}
		if _, err := conn.Write(make([]byte, response)); err != nil {
			return
		}
	}
}

func skip(conn net.Conn, bytes int64) bool {
	// Not io.CopyN, which would read without a call that a tracer sees.
	_, err := io.ReadFull(conn, make([]byte, bytes))
	return err == nil
}

func number(digits []byte) int64 {
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

// runOut opens files up to nine tenths of the limit at once, and tries as many again a little later; it
// counts what it is refused.
func runOut(limit uint64) {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		log.Fatal(err)
	}
	go func() {
		for open := uint64(0); open < limit*9/10; open++ {
			syscall.Open("/dev/null", syscall.O_RDONLY, 0)
		}
		fmt.Println("near", limit)
		time.Sleep(1500 * time.Millisecond)
		refused := 0
		for tried := uint64(0); tried < limit; tried++ {
			if _, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0); errors.Is(err, syscall.EMFILE) {
				refused++
			}
		}
		fmt.Fprintln(os.Stdout, "refused", refused)
	}()
}
