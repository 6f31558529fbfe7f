package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"time"
)

// Archive stores uploads.
type Archive struct {
	LargeBytes             int64
	LargeDelay, SmallDelay time.Duration
}

// Upload reads the whole body, stores it, and answers.
func (a *Archive) Upload(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
		return
	}
	a.store(size)
	w.WriteHeader(http.StatusOK)
	fmt.Fprintf(w, "stored %d bytes\n", size)
	// The service's own view: it answered, whoever was still there to hear it.
	log.Printf("%s %s 200 %d bytes in %v", r.Method, r.URL.Path, size, time.Since(began))
}

// store takes its time over large uploads, as a busy disk would.
func (a *Archive) store(size int64) {
	if size >= a.LargeBytes {
		time.Sleep(a.LargeDelay)
	} else {
		time.Sleep(a.SmallDelay)
	}
}
