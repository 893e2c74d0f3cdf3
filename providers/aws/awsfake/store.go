package awsfake

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// store holds the things of one kind under their names, and for a while those
// that are deleted: what AWS describes lags behind what it did.
type store[T any] struct {
	live  map[string]*entry[T]
	ghost []*entry[T]
	// order is what all last returned, until something comes or goes.
	order []T
}

type entry[T any] struct {
	key           string
	value         T
	serial        int
	created, gone time.Time
}

func (s *store[T]) add(key string, value T, serial int, now time.Time) {
	if s.live == nil {
		s.live = map[string]*entry[T]{}
	}
	s.live[key] = &entry[T]{key: key, value: value, serial: serial, created: now}
	s.order = nil
}

func (s *store[T]) get(key string) (value T, ok bool) {
	e, ok := s.live[key]
	if !ok {
		return value, false
	}
	return e.value, true
}

// age is how long a thing exists.
func (s *store[T]) age(key string, now time.Time) time.Duration {
	return now.Sub(s.live[key].created)
}

func (s *store[T]) remove(key string, now time.Time) {
	e, ok := s.live[key]
	if !ok {
		return
	}
	delete(s.live, key)
	s.order = nil
	e.gone = now
	s.ghost = append(s.ghost, e)
}

// all are the things that exist, oldest first. The list is the store's own.
func (s *store[T]) all() []T {
	if s.order == nil {
		s.order = make([]T, 0, len(s.live))
		for _, e := range slices.SortedFunc(maps.Values(s.live), bySerial) {
			s.order = append(s.order, e.value)
		}
	}
	return s.order
}

// seen are the things that AWS describes, oldest first.
func (s *store[T]) seen(now time.Time, d Delays) []numbered[T] {
	s.ghost = slices.DeleteFunc(s.ghost, func(e *entry[T]) bool { return now.Sub(e.gone) >= d.Gone })
	entries := slices.Clone(s.ghost)
	for _, e := range s.live {
		if now.Sub(e.created) >= d.Visible {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, bySerial)
	// One that was deleted and made again is shown once, as it is now.
	var shown []numbered[T]
	for i, e := range entries {
		if e.gone.IsZero() || !slices.ContainsFunc(entries[i+1:], func(later *entry[T]) bool { return later.key == e.key }) {
			shown = append(shown, numbered[T]{serial: e.serial, key: e.key, value: e.value})
		}
	}
	return shown
}

func bySerial[T any](a, b *entry[T]) int { return cmp.Compare(a.serial, b.serial) }

// numbered is a thing in a list that can be told in pages.
type numbered[T any] struct {
	serial int
	key    string
	value  T
}

func values[T any](list []numbered[T]) []T {
	out := make([]T, len(list))
	for i, n := range list {
		out[i] = n.value
	}
	return out
}

// pick is the part of a list that is named, in the order of the names, and the
// first name that is not there.
func pick[T any](list []numbered[T], keys []string, name func(T) string) (picked []numbered[T], missing string) {
	for _, key := range keys {
		i := slices.IndexFunc(list, func(n numbered[T]) bool { return name(n.value) == key })
		if i < 0 {
			return nil, key
		}
		if !slices.ContainsFunc(picked, func(n numbered[T]) bool { return n.serial == list[i].serial }) {
			picked = append(picked, list[i])
		}
	}
	return picked, ""
}
