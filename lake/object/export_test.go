package object

import "time"

// SetStallLimit is for stores opened from now on; the result puts it back.
func SetStallLimit(d time.Duration) (back func()) {
	was := stallLimit
	stallLimit = d
	return func() { stallLimit = was }
}
