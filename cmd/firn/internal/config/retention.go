package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"firn/catalog"
)

// Retention is which epochs are kept: the newest, and the first of each minute,
// hour and day for a while. Ages count back from the newest epoch.
type Retention struct {
	// Newest is how many are kept whatever their age.
	Newest Count `yaml:"newest"`
	// EveryMinute, EveryHour and EveryDay are for how long the first of each is
	// kept; 0s: it is not.
	EveryMinute Age `yaml:"every_minute"`
	EveryHour   Age `yaml:"every_hour"`
	EveryDay    Age `yaml:"every_day"`
}

// DefaultRetention is the catalog's own.
func DefaultRetention() Retention {
	r := catalog.DefaultRetention()
	return Retention{Newest: Count(r.Newest), EveryMinute: Age(r.Minutes), EveryHour: Age(r.Hours), EveryDay: Age(r.Days)}
}

// Rule is it as the catalog takes it.
func (r Retention) Rule() catalog.Retention {
	return catalog.Retention{Newest: int(r.Newest), Minutes: time.Duration(r.EveryMinute), Hours: time.Duration(r.EveryHour), Days: time.Duration(r.EveryDay)}
}

// String is it in words.
func (r Retention) String() string {
	text := fmt.Sprintf("the newest %d epochs", r.Newest)
	for _, x := range []struct {
		unit string
		age  Age
	}{{"a minute", r.EveryMinute}, {"an hour", r.EveryHour}, {"a day", r.EveryDay}} {
		if x.age > 0 {
			text += fmt.Sprintf(", one %s for %s", x.unit, x.age)
		}
	}
	return text + ", and tagged ones"
}

// Count is a whole number, not below zero.
type Count int

// UnmarshalText reads it.
func (c *Count) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 10, 31)
	if err != nil {
		return fmt.Errorf("want a number, not %q", b)
	}
	*c = Count(n)
	return nil
}

// Age is a duration that may also be in days, such as 30d.
type Age time.Duration

const day = Age(24 * time.Hour)

// UnmarshalText reads it.
func (a *Age) UnmarshalText(b []byte) error {
	wrong := fmt.Errorf("want an age such as 90m, 48h or 30d, not %q", b)
	if days, ok := strings.CutSuffix(string(b), "d"); ok {
		const most = 100 * 366
		n, err := strconv.ParseUint(days, 10, 31)
		if err != nil || n > most {
			return wrong
		}
		*a = Age(n) * day
		return nil
	}
	d, err := time.ParseDuration(string(b))
	if err != nil || d < 0 {
		return wrong
	}
	*a = Age(d)
	return nil
}

func (a Age) String() string {
	switch {
	case a >= 3*day && a%day == 0:
		return fmt.Sprintf("%dd", a/day)
	case a >= Age(time.Hour) && a%Age(time.Hour) == 0:
		return fmt.Sprintf("%dh", a/Age(time.Hour))
	case a >= Age(time.Minute) && a%Age(time.Minute) == 0:
		return fmt.Sprintf("%dm", a/Age(time.Minute))
	}
	return time.Duration(a).String()
}
