// Command client uploads small and large bodies, and prints one JSON line for each.
package main

import (
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"gopulse.test/services/internal/tied"
)

func main() {
	var uploader Uploader
	flag.StringVar(&uploader.URL, "url", "", "where to upload to")
	flag.DurationVar(&uploader.Timeout, "timeout", 0, "http.Client.Timeout; 0 waits for ever")
	flag.DurationVar(&uploader.ContextTimeout, "ctx-timeout", 0, "deadline of each request's context; 0 for none")
	flag.DurationVar(&uploader.DialTimeout, "dial-timeout", 0, "net.Dialer.Timeout; 0 waits for ever")
	flag.BoolVar(&uploader.Fresh, "fresh", false, "a new connection for every upload")
	n := flag.Int("n", 1, "uploads altogether; 0 goes on for ever")
	concurrency := flag.Int("concurrency", 1, "uploads at a time")
	interval := flag.Duration("interval", 0, "pause after each upload")
	small := flag.Int64("small", 1_000, "bytes of a small upload")
	large := flag.Int64("large", 200_000, "bytes of a large upload")
	every := flag.Int("large-every", 0, "every how many uploads one is large; 0 for none, 1 for all")
	random := flag.Bool("random", false, "draw which ones are large, with the same share")
	flag.Parse()
	tied.ToParent()

	uploader.Open()
	sizes := make(chan int64)
	go func() {
		defer close(sizes)
		for i := 0; *n == 0 || i < *n; i++ {
			isLarge := *every > 0 && (i+1)%*every == 0
			if *random && *every > 0 {
				isLarge = rand.IntN(*every) == 0
			}
			if isLarge {
				sizes <- *large
			} else {
				sizes <- *small
			}
		}
	}()

	var printing sync.Mutex
	out := json.NewEncoder(os.Stdout)
	var workers sync.WaitGroup
	for range *concurrency {
		workers.Go(func() {
			for size := range sizes {
				outcome := uploader.Upload(size)
				printing.Lock()
				out.Encode(outcome)
				printing.Unlock()
				time.Sleep(*interval)
			}
		})
	}
	workers.Wait()
}
