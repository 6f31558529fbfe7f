package main

import (
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Pace is a load whose rate does not depend on how fast the answers come.
type Pace struct {
	URL               string
	Rate, Connections int
	Duration          time.Duration
	Fresh             bool
}

// Latencies sums up a run, in seconds.
type Latencies struct {
	Requests int     `json:"requests"`
	Failed   int     `json:"failed"`
	P50      float64 `json:"p50_s"`
	P99      float64 `json:"p99_s"`
	Max      float64 `json:"max_s"`
}

// Run asks until the time is over.
func (p Pace) Run() Latencies {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives:   p.Fresh,
		MaxIdleConnsPerHost: p.Connections,
	}}
	var (
		gathering sync.Mutex
		all       []time.Duration
		failed    int
		workers   sync.WaitGroup
	)
	began := time.Now()
	for worker := range p.Connections {
		workers.Go(func() {
			latencies, failures := p.work(client, began, worker)
			gathering.Lock()
			defer gathering.Unlock()
			all = append(all, latencies...)
			failed += failures
		})
	}
	workers.Wait()
	return sumUp(all, failed)
}

// work sends every n-th request of the schedule. A latency counts from when the request was due, not
// from when it was sent: a service that stalls must not slow down the clock that judges it.
func (p Pace) work(client *http.Client, began time.Time, worker int) (latencies []time.Duration, failed int) {
	gap := time.Second / time.Duration(p.Rate)
	for i := worker; ; i += p.Connections {
		due := began.Add(time.Duration(i) * gap)
		if due.Sub(began) >= p.Duration {
			return latencies, failed
		}
		time.Sleep(time.Until(due))
		if err := get(client, p.URL); err != nil {
			failed++
			continue
		}
		latencies = append(latencies, time.Since(due))
	}
}

func get(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func sumUp(latencies []time.Duration, failed int) Latencies {
	sum := Latencies{Requests: len(latencies), Failed: failed}
	if len(latencies) == 0 {
		return sum
	}
	slices.Sort(latencies)
	at := func(share float64) float64 {
		return latencies[int(share*float64(len(latencies)-1))].Seconds()
	}
	sum.P50, sum.P99, sum.Max = at(0.50), at(0.99), at(1)
	return sum
}
