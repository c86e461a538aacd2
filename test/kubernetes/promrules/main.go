// Alerts and panels, judged by Prometheus' own rule format and query engine. JSON in on stdin, JSON out on stdout:
// a rule file to check, expressions to take apart, expressions to evaluate over given series.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

type series struct {
	Labels map[string]string `json:"labels"`
	// One sample each step, from time 0.
	Values []float64 `json:"values"`
}

type evaluation struct {
	Expr   string   `json:"expr"`
	At     int64    `json:"at"`
	Step   int64    `json:"step"`
	Series []series `json:"series"`
}

type selector struct {
	Metric   string     `json:"metric"`
	Matchers [][]string `json:"matchers"`
}

type taken struct {
	Error     string     `json:"error,omitempty"`
	Selectors []selector `json:"selectors"`
	// Labels that results are grouped by.
	Grouping []string `json:"grouping"`
}

type sample struct {
	Labels map[string]string `json:"labels"`
	Value  float64           `json:"value"`
}

type result struct {
	Error  string   `json:"error,omitempty"`
	Sample []sample `json:"samples"`
}

type input struct {
	Rules       string       `json:"rules"`
	Expressions []string     `json:"expressions"`
	Evaluations []evaluation `json:"evaluations"`
}

type output struct {
	Errors  []string `json:"errors"`
	Taken   []taken  `json:"taken"`
	Results []result `json:"results"`
}

// float is a sample of one number.
type float struct {
	t int64
	v float64
}

func (s float) ST() int64                     { return 0 }
func (s float) T() int64                      { return s.t }
func (s float) F() float64                    { return s.v }
func (s float) H() *histogram.Histogram       { return nil }
func (s float) FH() *histogram.FloatHistogram { return nil }
func (s float) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s float) Copy() chunks.Sample           { return s }

// held is all series of an evaluation.
type held struct{ all []*storage.SeriesEntry }

func (h held) Querier(_, _ int64) (storage.Querier, error) { return h, nil }
func (h held) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}
func (h held) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}
func (h held) Close() error { return nil }
func (h held) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	found := &set{at: -1}
next:
	for _, one := range h.all {
		for _, matcher := range matchers {
			if !matcher.Matches(one.Lset.Get(matcher.Name)) {
				continue next
			}
		}
		found.all = append(found.all, one)
	}
	return found
}

type set struct {
	all []*storage.SeriesEntry
	at  int
}

func (s *set) Next() bool                        { s.at++; return s.at < len(s.all) }
func (s *set) At() storage.Series                { return s.all[s.at] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

func takeApart(p parser.Parser, text string) taken {
	expr, err := p.ParseExpr(text)
	if err != nil {
		return taken{Error: err.Error(), Selectors: []selector{}, Grouping: []string{}}
	}
	found := taken{Selectors: []selector{}, Grouping: []string{}}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch one := node.(type) {
		case *parser.VectorSelector:
			chosen := selector{Metric: one.Name, Matchers: [][]string{}}
			for _, matcher := range one.LabelMatchers {
				if matcher.Name == labels.MetricName {
					chosen.Metric = matcher.Value
					continue
				}
				chosen.Matchers = append(chosen.Matchers, []string{matcher.Name, matcher.Type.String(), matcher.Value})
			}
			found.Selectors = append(found.Selectors, chosen)
		case *parser.AggregateExpr:
			found.Grouping = append(found.Grouping, one.Grouping...)
		}
		return nil
	})
	return found
}

func evaluate(engine *promql.Engine, asked evaluation) result {
	var all []*storage.SeriesEntry
	for _, one := range asked.Series {
		var samples []chunks.Sample
		for i, value := range one.Values {
			samples = append(samples, float{int64(i) * asked.Step * 1000, value})
		}
		all = append(all, storage.NewListSeries(labels.FromMap(one.Labels), samples))
	}
	query, err := engine.NewInstantQuery(context.Background(), held{all}, nil, asked.Expr, time.Unix(asked.At, 0))
	if err != nil {
		return result{Error: err.Error()}
	}
	defer query.Close()
	answer := query.Exec(context.Background())
	if answer.Err != nil {
		return result{Error: answer.Err.Error()}
	}
	vector, err := answer.Vector()
	if err != nil {
		return result{Error: err.Error()}
	}
	found := result{Sample: []sample{}}
	for _, one := range vector {
		value := one.F
		// JSON knows neither
		if math.IsInf(value, 0) || math.IsNaN(value) {
			value = math.MaxFloat64
		}
		found.Sample = append(found.Sample, sample{one.Metric.Map(), value})
	}
	return found
}

func main() {
	var asked input
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		log.Fatal(err)
	}
	p := parser.NewParser(parser.Options{})
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples:           1_000_000,
		Timeout:              time.Minute,
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
		Parser:               p,
	})
	said := output{Errors: []string{}, Taken: []taken{}, Results: []result{}}
	if asked.Rules != "" {
		_, errs := rulefmt.Parse([]byte(asked.Rules), false, model.UTF8Validation, p, slog.New(slog.DiscardHandler))
		for _, err := range errs {
			said.Errors = append(said.Errors, fmt.Sprint(err))
		}
	}
	for _, one := range asked.Expressions {
		said.Taken = append(said.Taken, takeApart(p, one))
	}
	for _, one := range asked.Evaluations {
		said.Results = append(said.Results, evaluate(engine, one))
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		log.Fatal(err)
	}
}
