// Command burn spends CPU time in two functions, by turns, while it takes a profile of itself over HTTP. It
// leaves the profile in DIR/profile.pb.gz, and in DIR/burnt.json what the kernel says it used meanwhile.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"gopulse.test/services/internal/tied"
)

// Turns are short, for many of them make a sample fair, and of no fixed length, for the profilers' clocks
// tick at one.
const longestTurn = 4 * time.Millisecond

func main() {
	permille := flag.Int("permille", 500, "the share of main.chew; main.grind has the rest")
	duration := flag.Duration("duration", 5*time.Second, "for how long")
	workers := flag.Int("workers", 2, "goroutines that burn")
	into := flag.String("into", ".", "where to leave the results")
	flag.Parse()
	tied.ToParent()

	profile := make(chan []byte)
	go func() { profile <- profiled(*duration + time.Second) }()
	for !profiling() {
		time.Sleep(time.Millisecond)
	}
	before := used()
	var all sync.WaitGroup
	for range *workers {
		all.Go(func() { burn(*duration, float64(*permille)/1000) })
	}
	all.Wait()
	burnt, err := json.Marshal(map[string]float64{"cpu_s": (used() - before).Seconds()})
	if err != nil {
		log.Fatal(err)
	}
	save(filepath.Join(*into, "burnt.json"), burnt)
	save(filepath.Join(*into, "profile.pb.gz"), <-profile)
}

func burn(duration time.Duration, share float64) {
	for end := time.Now().Add(duration); time.Now().Before(end); {
		turn := time.Duration(rand.Int64N(int64(longestTurn)))
		chewing := time.Duration(float64(turn) * share)
		chew(chewing)
		grind(turn - chewing)
	}
}

//go:noinline
func chew(duration time.Duration) (sum uint64) {
	for end := time.Now().Add(duration); time.Now().Before(end); {
		for n := range uint64(2_000) {
			sum += n * n
		}
	}
	return sum
}

//go:noinline
func grind(duration time.Duration) (sum uint64) {
	for end := time.Now().Add(duration); time.Now().Before(end); {
		for n := range uint64(2_000) {
			sum ^= n<<7 | sum>>3
		}
	}
	return sum
}

// profiled takes a profile as everybody takes it.
func profiled(duration time.Duration) []byte {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(listener, http.HandlerFunc(pprof.Profile))
	url := fmt.Sprintf("http://%s/?seconds=%d", listener.Addr(), int(duration.Seconds()+0.5))
	response, err := http.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		log.Fatal("no profile: ", response.Status, err)
	}
	return body
}

// profiling says whether the profile has begun: the runtime has a goroutine that writes it.
func profiling() bool {
	stacks := make([]byte, 64<<10)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Contains(string(stacks), "runtime/pprof.profileWriter")
}

// used is the CPU time of this process so far.
func used() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func save(path string, bytes []byte) {
	if err := os.WriteFile(path, bytes, 0o600); err != nil {
		log.Fatal(err)
	}
}
