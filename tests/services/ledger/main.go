// Command ledger keeps accounts under locks: some it holds for too long, some it takes in the wrong
// order, and some as they should be.
package main

import (
	"flag"
	"io"
	"net/http"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	slow := flag.Duration("slow", 300*time.Millisecond, "how long a slow entry takes")
	flag.Parse()
	tied.ToParent()

	ledger := NewLedger(*slow)
	handle := func(path string, work func(r *http.Request)) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			work(r)
			io.WriteString(w, "ok\n")
		})
	}
	handle("/ok", func(*http.Request) {})
	handle("/enter", func(*http.Request) { ledger.Enter() })
	handle("/count", func(*http.Request) { ledger.Count() })
	handle("/there", func(*http.Request) { Transfer(ledger.ours, ledger.theirs, *slow) })
	handle("/back", func(*http.Request) { Transfer(ledger.theirs, ledger.ours, *slow) })
	handle("/safe", func(*http.Request) { ledger.Safe() })
	serve.HTTP(*address, nil)
}
