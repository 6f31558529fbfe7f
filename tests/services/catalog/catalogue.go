package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// An Item is a small thing with pointers in it, as most things are.
type Item struct {
	Name   string
	Tags   []*Tag
	Nearby *Item
}

// A Tag says one thing of an item.
type Tag struct {
	Key, Value string
}

// Catalogue lies in memory.
type Catalogue struct {
	items []*Item
}

// NewCatalogue makes up so many items.
func NewCatalogue(items int) *Catalogue {
	catalogue := &Catalogue{items: make([]*Item, items)}
	for i := range catalogue.items {
		catalogue.items[i] = &Item{
			Name: fmt.Sprint("item ", i),
			Tags: []*Tag{{"colour", fmt.Sprint(i % 7)}, {"size", fmt.Sprint(i % 13)}},
		}
	}
	for _, item := range catalogue.items {
		item.Nearby = catalogue.any()
	}
	return catalogue
}

// Search counts the items that match, among a number of them.
func (c *Catalogue) Search(query string, looks int) int {
	matches := 0
	for range looks {
		matches += c.any().matches(query)
	}
	return matches
}

// SearchCopies does the same on copies, which are garbage at once.
func (c *Catalogue) SearchCopies(query string, looks int) int {
	var copies []*Item
	for range looks {
		copies = append(copies, c.any().clone())
	}
	matches := 0
	for _, item := range copies {
		matches += item.matches(query)
	}
	return matches
}

func (c *Catalogue) any() *Item {
	return c.items[rand.IntN(len(c.items))]
}

func (i *Item) matches(query string) int {
	for _, tag := range i.Tags {
		if strings.Contains(tag.Value, query) {
			return 1
		}
	}
	return 0
}

func (i *Item) clone() *Item {
	copied := &Item{Name: strings.Clone(i.Name), Nearby: i.Nearby}
	for _, tag := range i.Tags {
		copied.Tags = append(copied.Tags, &Tag{strings.Clone(tag.Key), strings.Clone(tag.Value)})
	}
	return copied
}
