package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"
)

// Uploader sends bodies to one URL.
type Uploader struct {
	URL                                  string
	Timeout, ContextTimeout, DialTimeout time.Duration
	Fresh                                bool

	client http.Client
}

// Outcome is what became of one upload. Status is 0 where no response came.
type Outcome struct {
	Bytes   int64   `json:"bytes"`
	Status  int     `json:"status"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Open makes the uploader ready, once all its settings are made.
func (u *Uploader) Open() {
	dialer := &net.Dialer{Timeout: u.DialTimeout}
	u.client = http.Client{
		Timeout: u.Timeout,
		Transport: &http.Transport{
			DialContext:         dialer.DialContext,
			DisableKeepAlives:   u.Fresh,
			MaxIdleConnsPerHost: 16,
		},
	}
}

// Upload sends a body of this size and waits for what becomes of it.
func (u *Uploader) Upload(size int64) Outcome {
	began := time.Now()
	status, err := u.post(size)
	outcome := Outcome{Bytes: size, Status: status, Seconds: time.Since(began).Seconds()}
	if err != nil {
		outcome.Error = err.Error()
	}
	return outcome
}

func (u *Uploader) post(size int64) (int, error) {
	ctx := context.Background()
	if u.ContextTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, u.ContextTimeout)
		defer cancel()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.URL, io.LimitReader(zeros{}, size))
	if err != nil {
		return 0, err
	}
	request.ContentLength = size
	response, err := u.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
