package cas_test

import "time"

func seconds(f func()) float64 {
	t := time.Now()
	f()
	return time.Since(t).Seconds()
}
