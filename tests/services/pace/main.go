// Command pace asks a service at a fixed rate and prints how long the answers took, as one JSON line.
package main

import (
	"encoding/json"
	"flag"
	"os"
	"time"

	"gopulse.test/services/internal/tied"
)

func main() {
	var pace Pace
	flag.StringVar(&pace.URL, "url", "", "what to ask for")
	flag.IntVar(&pace.Rate, "rate", 1_000, "requests per second")
	flag.IntVar(&pace.Connections, "connections", 8, "connections, or requests at a time")
	flag.DurationVar(&pace.Duration, "duration", 4*time.Second, "for how long")
	flag.BoolVar(&pace.Fresh, "fresh", false, "a new connection for every request")
	flag.Parse()
	tied.ToParent()

	json.NewEncoder(os.Stdout).Encode(pace.Run())
}
