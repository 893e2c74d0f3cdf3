package instances

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// answer is what EC2 says of a key: the instance, an error, or neither when
// there is no such instance.
type answer struct {
	instance *types.Instance
	err      error
}

// queue gathers keys that are asked for at about the same time. Whoever asks
// first waits for others, asks for all of them, and hands the answers round.
type queue struct {
	limit int
	ask   func(ctx context.Context, keys []string) map[string]answer

	mu   sync.Mutex
	open *batch
}

type batch struct {
	keys    map[string]bool
	full    chan struct{}
	done    chan struct{}
	answers map[string]answer
}

func (q *queue) get(ctx context.Context, key string) answer {
	b, first := q.join(key)
	if first {
		q.lead(ctx, b)
	}
	select {
	case <-b.done:
		return b.answers[key]
	case <-ctx.Done():
		return answer{err: context.Cause(ctx)}
	}
}

// join adds a key to the batch that is open, which it closes when that is full.
func (q *queue) join(key string) (b *batch, first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open == nil {
		q.open = &batch{keys: map[string]bool{}, full: make(chan struct{}), done: make(chan struct{})}
		first = true
	}
	b = q.open
	b.keys[key] = true
	if len(b.keys) == q.limit {
		close(b.full)
		q.open = nil
	}
	return b, first
}

// lead asks for the keys of a batch when it is full or the window is over. It
// goes on when its own caller gives up: others wait for the answers.
func (q *queue) lead(ctx context.Context, b *batch) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	select {
	case <-b.full:
	case <-time.After(window):
	}
	q.mu.Lock()
	if q.open == b {
		q.open = nil
	}
	q.mu.Unlock()
	b.answers = q.ask(ctx, slices.Sorted(maps.Keys(b.keys)))
	close(b.done)
}
