package column

import (
	"math"
	"strconv"
)

const (
	epochDays   = 10957 // 1970-01-01 to 2000-01-01
	dayMicros   = 86_400_000_000
	epochMicros = epochDays * dayMicros
	// firstDay is where Postgres' calendar begins: 4714-11-24 BC, Julian day 0.
	firstDay = -2440588
	// maxMicrosDay is the last day that begins within an int64 of microseconds
	// since 1970.
	maxMicrosDay = math.MaxInt64 / dayMicros
)

// civilDays counts days from 1970-01-01 in the proleptic Gregorian calendar;
// year 0 is 1 BC. Algorithm: Howard Hinnant, "chrono-compatible low-level date
// algorithms", days_from_civil.
func civilDays(year int64, month, day int) int64 {
	if month <= 2 {
		year--
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	yoe := year - era*400
	m := int64(month+9) % 12
	doy := (153*m+2)/5 + int64(day) - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

// civil is civilDays' inverse.
func civil(days int64) (year int64, month, day int) {
	days += 719468
	era := days / 146097
	if days < 0 {
		era = (days - 146096) / 146097
	}
	doe := days - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	year = yoe + era*400
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	m := (5*doy + 2) / 153
	day = int(doy - (153*m+2)/5 + 1)
	month = int(m + 3)
	if m >= 10 {
		month = int(m - 9)
		year++
	}
	return year, month, day
}

var monthDays = [13]int{0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

// cutBC takes the suffix off that Postgres gives years before 1.
func cutBC(data []byte) ([]byte, bool) {
	if n := len(data) - 3; n > 0 && data[n] == ' ' && data[n+1] == 'B' && data[n+2] == 'C' {
		return data[:n], true
	}
	return data, false
}

// parseDate reads 2024-02-29 from the beginning of data, with four to seven
// digits of the year, and returns days since 1970-01-01 and what follows.
func parseDate(data []byte, bc bool) (days int64, rest []byte, ok bool) {
	var year int64
	i := 0
	for ; i < len(data) && i < 8 && data[i]-'0' <= 9; i++ {
		year = year*10 + int64(data[i]-'0')
	}
	if i < 4 || i > 7 || year == 0 || len(data) < i+6 || data[i] != '-' || data[i+3] != '-' {
		return 0, nil, false
	}
	month, ok1 := two(data[i+1:])
	day, ok2 := two(data[i+4:])
	if !ok1 || !ok2 || month < 1 || month > 12 || day < 1 || day > monthDays[month] {
		return 0, nil, false
	}
	if bc {
		year = 1 - year
	}
	if month == 2 && day == 29 && (year%4 != 0 || year%100 == 0 && year%400 != 0) {
		return 0, nil, false
	}
	return civilDays(year, month, day), data[i+6:], true
}

// two is a number of two digits at the beginning of data.
func two(data []byte) (int, bool) {
	if len(data) < 2 {
		return 0, false
	}
	a, b := data[0]-'0', data[1]-'0'
	return int(a)*10 + int(b), a <= 9 && b <= 9
}

// parseClock reads 23:59:59.123456 from the beginning of data, the fraction of
// up to six digits being optional, and returns microseconds and what follows.
// 24:00:00 is taken: time has it.
func parseClock(data []byte) (micros int64, rest []byte, ok bool) {
	if len(data) < 8 || data[2] != ':' || data[5] != ':' {
		return 0, nil, false
	}
	h, ok1 := two(data)
	m, ok2 := two(data[3:])
	s, ok3 := two(data[6:])
	if !ok1 || !ok2 || !ok3 || m > 59 || s > 59 {
		return 0, nil, false
	}
	micros = (int64(h)*3600 + int64(m)*60 + int64(s)) * 1_000_000
	rest = data[8:]
	if len(rest) > 0 && rest[0] == '.' {
		rest = rest[1:]
		unit := int64(100_000)
		for len(rest) > 0 && rest[0]-'0' <= 9 {
			micros += int64(rest[0]-'0') * unit
			unit /= 10
			rest = rest[1:]
			if unit == 0 {
				break
			}
		}
		if unit == 100_000 {
			return 0, nil, false
		}
	}
	return micros, rest, micros <= dayMicros
}

// parseOffset reads +00, -03:30 or +00:19:32, all of data, as microseconds
// east of Greenwich.
func parseOffset(data []byte) (micros int64, ok bool) {
	if len(data) != 3 && len(data) != 6 && len(data) != 9 || data[0] != '+' && data[0] != '-' {
		return 0, false
	}
	unit := int64(3600)
	for i := 1; i < len(data); i += 3 {
		v, ok := two(data[i:])
		if !ok || v > 59 || i > 1 && data[i-1] != ':' {
			return 0, false
		}
		micros += int64(v) * unit * 1_000_000
		unit /= 60
	}
	if data[0] == '-' {
		micros = -micros
	}
	return micros, true
}

// appendDate and appendClock print as Postgres does with DateStyle ISO; the
// suffix BC of the date comes at the very end, so it is the caller's.
func appendDate(dst []byte, days int64) (out []byte, bc bool) {
	year, month, day := civil(days)
	if year <= 0 {
		year, bc = 1-year, true
	}
	for limit := int64(1000); limit > 1 && year < limit; limit /= 10 {
		dst = append(dst, '0')
	}
	dst = strconv.AppendInt(dst, year, 10)
	return append(dst, '-', '0'+byte(month/10), '0'+byte(month%10), '-', '0'+byte(day/10), '0'+byte(day%10)), bc
}

func appendClock(dst []byte, micros int64) []byte {
	s := micros / 1_000_000
	for i, v := range [...]int64{s / 3600, s / 60 % 60, s % 60} {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = append(dst, '0'+byte(v/10), '0'+byte(v%10))
	}
	frac := micros % 1_000_000
	if frac == 0 {
		return dst
	}
	dst = append(dst, '.')
	for unit := int64(100_000); frac > 0; unit /= 10 {
		dst = append(dst, '0'+byte(frac/unit))
		frac %= unit
	}
	return dst
}

// appendTimestamp prints a day since 1970 and the microseconds within it.
func appendTimestamp(dst []byte, days, micros int64, tz bool) []byte {
	dst, bc := appendDate(dst, days)
	dst = append(dst, ' ')
	dst = appendClock(dst, micros)
	if tz {
		dst = append(dst, "+00"...)
	}
	if bc {
		dst = append(dst, " BC"...)
	}
	return dst
}

// splitMicros is floor division into days and microseconds of the day.
func splitMicros(v int64) (days, micros int64) {
	days, micros = v/dayMicros, v%dayMicros
	if micros < 0 {
		days, micros = days-1, micros+dayMicros
	}
	return days, micros
}
