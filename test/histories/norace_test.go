//go:build !race

package histories

// raceDetector tells whether the tests run under the race detector.
const raceDetector = false
