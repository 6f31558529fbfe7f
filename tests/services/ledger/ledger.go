package main

import (
	"sync"
	"time"
)

// A Ledger has a lock for its entries, and two accounts with locks of their own.
type Ledger struct {
	slow    time.Duration
	lock    sync.Mutex
	entries int
	ours    *Account
	theirs  *Account
}

// An Account has a balance.
type Account struct {
	owner   string
	lock    sync.Mutex
	balance int
}

// NewLedger gives an empty one.
func NewLedger(slow time.Duration) *Ledger {
	return &Ledger{slow: slow, ours: &Account{owner: "ours"}, theirs: &Account{owner: "theirs"}}
}

// Enter holds the lock over something slow.
func (l *Ledger) Enter() {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.write()
	l.entries++
}

// write takes its time, as a remote store does.
func (l *Ledger) write() {
	time.Sleep(l.slow)
}

// Count holds the lock for no time.
func (l *Ledger) Count() int {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.entries++
	return l.entries
}

// Transfer locks whom it takes from, and then whom it gives to.
func Transfer(from, to *Account, pause time.Duration) {
	from.lock.Lock()
	defer from.lock.Unlock()
	time.Sleep(pause)
	to.lock.Lock()
	defer to.lock.Unlock()
	from.balance--
	to.balance++
}

// Safe locks both accounts in the same order every time.
func (l *Ledger) Safe() {
	Transfer(l.ours, l.theirs, l.slow)
}
