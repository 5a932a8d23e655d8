package wire

import (
	"firn/compaction"
	"firn/lake"
)

// planner is compaction's planner as the owner asks it; nil: with defaults.
func planner(o *compaction.Options) func([]lake.LiveFile) []lake.RewritePlan {
	if o == nil {
		o = &compaction.Options{}
	}
	return func(files []lake.LiveFile) []lake.RewritePlan {
		var t compaction.Table
		for _, f := range files {
			t.Data = append(t.Data, compaction.DataFile{Path: f.Path, Bytes: f.Bytes, Rows: f.Rows, Dead: f.Dead, Young: f.Young, Resting: f.Resting, Asked: f.Asked, Unsorted: f.Unsorted, Busy: f.Busy,
				Partition: compaction.Partition{Values: f.Partition}})
		}
		var out []lake.RewritePlan
		for _, w := range compaction.Plan(t, *o) {
			out = append(out, lake.RewritePlan{Inputs: w.Inputs, Bytes: w.InBytes, Urgency: w.Urgency(), Reason: w.Reason})
		}
		return out
	}
}
