//go:build race

package localstore

// raceDetector tells whether the tests run under the race detector; see skipUnderRaceDetector.
const raceDetector = true
