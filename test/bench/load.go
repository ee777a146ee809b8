package main

import (
	"context"
	"sync"
	"time"
)

// oneByOne calls f n times, one after the other, and returns how long each call took.
func oneByOne(n int, f func(i int) error) ([]time.Duration, error) {
	samples := make([]time.Duration, 0, n)
	for i := range n {
		started := time.Now()
		if err := f(i); err != nil {
			return samples, err
		}
		samples = append(samples, time.Since(started))
	}
	return samples, nil
}

// loadResult is what many clients did.
type loadResult struct {
	clients   int
	took      time.Duration
	latencies []time.Duration
}

// underLoad lets clients call f for the duration, each one call after the other. The
// first error ends it.
func underLoad(ctx context.Context, clients int, duration time.Duration, f func(client, i int) error) (loadResult, error) {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		first   error
		started = time.Now()
		result  = loadResult{clients: clients}
	)
	for client := range clients {
		wg.Go(func() {
			var own []time.Duration
			var err error
			for i := 0; ctx.Err() == nil && err == nil; i++ {
				callStarted := time.Now()
				if err = f(client, i); err == nil {
					own = append(own, time.Since(callStarted))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			result.latencies = append(result.latencies, own...)
			if err != nil && first == nil {
				first = err
				cancel()
			}
		})
	}
	wg.Wait()
	result.took = time.Since(started)
	return result, first
}
