// What users of the jetstream package of nats.go do. OBJECT_MB says how large the large object is.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// How large the large object is.
func objectMB() int {
	if size, found := os.LookupEnv("OBJECT_MB"); found {
		return must(strconv.Atoi(size))
	}
	return 5
}

// Scenarios are given up by then; a large object takes its time.
func limit() time.Duration {
	return time.Duration(60+objectMB()) * time.Second
}

type session struct {
	jetstream.JetStream
	ctx    context.Context
	server *server
}

// Each on a connection of its own, and without anything left behind by the one before.
func alone(name string, run func(session)) scenario {
	return scenario{name, func(s *server) {
		nc := s.connect(nats.ReconnectWait(50*time.Millisecond), nats.MaxReconnects(-1))
		defer nc.Close()
		ctx, cancel := context.WithTimeout(context.Background(), limit())
		defer cancel()
		js := session{must(jetstream.New(nc)), ctx, s}
		for stream := range js.StreamNames(ctx).Name() {
			check(js.DeleteStream(ctx, stream))
		}
		run(js)
	}}
}

func jetstreamScenarios() []scenario {
	return []scenario{
		alone("streams", streams), alone("publishing", publishing), alone("limits", limits), alone("getting", getting),
		alone("purging", purging), alone("pull", pull), alone("acknowledging", acknowledging), alone("ordered", ordered),
		alone("push", push), alone("flow_control", flowControl), alone("work_queue", workQueue),
		alone("failing_workers", failingWorkers), alone("interest", interest), alone("consumers", consumers),
		alone("account", account), alone("key_value", keyValue), alone("key_value_ttl", keyValueTTL),
		alone("object_store", objectStore), alone("crash", crash),
	}
}

// The error of the API that has this code.
func refused(err error, code jetstream.ErrorCode) {
	var api *jetstream.APIError
	var js jetstream.JetStreamError
	switch {
	case errors.As(err, &api):
	case errors.As(err, &js) && js.APIError() != nil:
		api = js.APIError()
	default:
		panic(fmt.Errorf("wanted %d, got %v", code, err))
	}
	equal(api.ErrorCode, code)
}

func is(err, wanted error) {
	if !errors.Is(err, wanted) {
		panic(fmt.Errorf("got %v, wanted %v", err, wanted))
	}
}

func ignore[T any](_ T, err error) error {
	return err
}

// Waits for a state of the server that nothing announces.
func until(what string, condition func() bool) {
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	panic(errors.New("never: " + what))
}

func (js session) stream(config jetstream.StreamConfig) jetstream.Stream {
	return must(js.CreateStream(js.ctx, config))
}

func (js session) fill(subject string, count int) {
	var futures []jetstream.PubAckFuture
	for _, text := range numbers(count) {
		futures = append(futures, must(js.PublishAsync(subject, []byte(text))))
	}
	for _, future := range futures {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			panic(err)
		case <-time.After(wait):
			panic(errors.New("an acknowledgement is missing"))
		}
	}
}

func (js session) publish(subject, text string, options ...jetstream.PublishOpt) *jetstream.PubAck {
	return must(js.Publish(js.ctx, subject, []byte(text), options...))
}

func (js session) state(stream jetstream.Stream) jetstream.StreamState {
	return must(stream.Info(js.ctx, jetstream.WithSubjectFilter(">"))).State
}

func (js session) consumer(stream jetstream.Stream, config jetstream.ConsumerConfig) jetstream.Consumer {
	return must(stream.CreateConsumer(js.ctx, config))
}

func fetch(consumer jetstream.Consumer, count int, longest time.Duration) []jetstream.Msg {
	batch := must(consumer.Fetch(count, jetstream.FetchMaxWait(longest)))
	var got []jetstream.Msg
	for msg := range batch.Messages() {
		got = append(got, msg)
	}
	check(batch.Error())
	return got
}

func number(msg jetstream.Msg) int {
	return must(strconv.Atoi(string(msg.Data())))
}

func bodies(messages []jetstream.Msg) []int {
	var all []int
	for _, msg := range messages {
		all = append(all, number(msg))
	}
	return all
}

func upTo(count int) []int {
	all := make([]int, count)
	for i := range all {
		all[i] = i
	}
	return all
}

// From whichever worker: what arrived, and where.
func gather(arrived <-chan [2]int, count, workers int) {
	var all []int
	seen := map[int]int{}
	for range count {
		select {
		case one := <-arrived:
			seen[one[0]]++
			all = append(all, one[1])
		case <-time.After(wait):
			panic(fmt.Errorf("%d messages are missing", count-len(all)))
		}
	}
	slices.Sort(all)
	equal(all, upTo(count))
	equal(len(seen), workers)
}

func streams(js session) {
	config := jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, MaxMsgs: 1000, Metadata: map[string]string{"k": "v"}}
	stream := js.stream(config)
	created := stream.CachedInfo().Config
	equal([]any{created.MaxMsgs, created.Retention, created.Storage, created.Metadata["k"]},
		[]any{int64(1000), jetstream.LimitsPolicy, jetstream.FileStorage, "v"})
	equal(js.stream(config).CachedInfo().Config, created)
	refused(ignore(js.CreateStream(js.ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"other"}})), 10058)
	refused(ignore(js.CreateStream(js.ctx, jetstream.StreamConfig{Name: "T", Subjects: []string{"s.x"}})), 10065)
	config.Subjects = append(config.Subjects, "more")
	equal(must(js.UpdateStream(js.ctx, config)).CachedInfo().Config.Subjects, []string{"s.>", "more"})
	memory := config
	memory.Storage = jetstream.MemoryStorage
	refused(ignore(js.UpdateStream(js.ctx, memory)), 10052)
	for _, subject := range []string{"s.a", "s.a", "s.b", "more"} {
		js.publish(subject, "x")
	}
	state := js.state(stream)
	equal(state.Subjects, map[string]uint64{"s.a": 2, "s.b": 1, "more": 1})
	equal([]uint64{state.Msgs, state.FirstSeq, state.LastSeq, state.NumSubjects}, []uint64{4, 1, 4, 3})
	js.stream(jetstream.StreamConfig{Name: "M", Subjects: []string{"m"}, Storage: jetstream.MemoryStorage})
	var names []string
	for name := range js.StreamNames(js.ctx).Name() {
		names = append(names, name)
	}
	slices.Sort(names)
	equal(names, []string{"M", "S"})
	for info := range js.ListStreams(js.ctx, jetstream.WithStreamListSubject("m")).Info() {
		equal(info.Config.Name, "M")
	}
	equal(must(js.StreamNameBySubject(js.ctx, "s.x")), "S")
	check(js.DeleteStream(js.ctx, "M"))
	is(ignore(js.Stream(js.ctx, "M")), jetstream.ErrStreamNotFound)
	is(js.DeleteStream(js.ctx, "M"), jetstream.ErrStreamNotFound)
	is(ignore(js.Publish(js.ctx, "m", nil)), jetstream.ErrNoStreamResponse)
}

func publishing(js session) {
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"p.>"}})
	first := js.publish("p.a", "1", jetstream.WithMsgID("one"))
	equal([]any{first.Stream, first.Sequence, first.Duplicate}, []any{"S", uint64(1), false})
	again := js.publish("p.a", "1", jetstream.WithMsgID("one"))
	equal([]any{again.Sequence, again.Duplicate}, []any{uint64(1), true})
	fails := func(code jetstream.ErrorCode, option jetstream.PublishOpt) {
		refused(ignore(js.Publish(js.ctx, "p.b", []byte("x"), option)), code)
	}
	equal(js.publish("p.a", "2", jetstream.WithExpectLastSequence(1)).Sequence, uint64(2))
	fails(10071, jetstream.WithExpectLastSequence(1))
	fails(10071, jetstream.WithExpectLastSequencePerSubject(1))
	fails(10070, jetstream.WithExpectLastMsgID("other"))
	fails(10060, jetstream.WithExpectStream("T"))
	equal(js.publish("p.b", "3", jetstream.WithExpectLastSequencePerSubject(0)).Sequence, uint64(3))
	js.fill("p.many", 2000)
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(wait):
		panic(errors.New("not complete"))
	}
	equal(js.state(stream).Msgs, uint64(2003))
	equal(string(must(stream.GetMsg(js.ctx, 2003)).Data), "1999")
}

func limits(js session) {
	old := js.stream(jetstream.StreamConfig{Name: "OLD", Subjects: []string{"old.*"}, MaxMsgs: 5, MaxMsgsPerSubject: 2})
	for i, text := range numbers(10) {
		js.publish("old."+strconv.Itoa(i%2), text)
	}
	state := js.state(old)
	equal([]uint64{state.Msgs, state.FirstSeq, state.LastSeq}, []uint64{4, 7, 10})
	equal(state.Subjects, map[string]uint64{"old.0": 2, "old.1": 2})
	js.stream(jetstream.StreamConfig{
		Name: "NEW", Subjects: []string{"new"}, MaxMsgs: 1, Discard: jetstream.DiscardNew, MaxMsgSize: 10})
	js.publish("new", "1")
	refused(ignore(js.Publish(js.ctx, "new", []byte("2"))), 10077)
	refused(ignore(js.Publish(js.ctx, "new", make([]byte, 11))), 10054)
	age := js.stream(jetstream.StreamConfig{Name: "AGE", Subjects: []string{"age"}, MaxAge: 300 * time.Millisecond})
	js.publish("age", "")
	until("the message is too old", func() bool { return js.state(age).Msgs == 0 })
}

func getting(js session) {
	for _, direct := range []bool{false, true} {
		stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"g.>"}, AllowDirect: direct})
		for i, subject := range []string{"g.a", "g.b", "g.a", "g.c"} {
			msg := nats.NewMsg(subject)
			msg.Data = []byte(strconv.Itoa(i))
			msg.Header.Set("N", strconv.Itoa(i))
			must(js.PublishMsg(js.ctx, msg))
		}
		second := must(stream.GetMsg(js.ctx, 2))
		equal([]any{second.Subject, second.Sequence, string(second.Data), second.Header.Get("N")}, []any{"g.b", uint64(2), "1", "1"})
		equal(must(stream.GetLastMsgForSubject(js.ctx, "g.a")).Sequence, uint64(3))
		equal(must(stream.GetMsg(js.ctx, 2, jetstream.WithGetMsgSubject("g.a"))).Sequence, uint64(3))
		is(ignore(stream.GetMsg(js.ctx, 9)), jetstream.ErrMsgNotFound)
		is(ignore(stream.GetLastMsgForSubject(js.ctx, "g.none")), jetstream.ErrMsgNotFound)
		check(stream.DeleteMsg(js.ctx, 2))
		check(stream.SecureDeleteMsg(js.ctx, 3))
		is(ignore(stream.GetMsg(js.ctx, 2)), jetstream.ErrMsgNotFound)
		is(stream.DeleteMsg(js.ctx, 2), jetstream.ErrMsgDeleteUnsuccessful)
		state := must(stream.Info(js.ctx, jetstream.WithDeletedDetails(true))).State
		equal(state.Deleted, []uint64{2, 3})
		check(js.DeleteStream(js.ctx, "S"))
	}
}

func purging(js session) {
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"g.*"}})
	for i, text := range numbers(30) {
		js.publish("g."+strconv.Itoa(i%3), text)
	}
	check(stream.Purge(js.ctx, jetstream.WithPurgeSubject("g.1")))
	equal(js.state(stream).Subjects, map[string]uint64{"g.0": 10, "g.2": 10})
	check(stream.Purge(js.ctx, jetstream.WithPurgeSubject("g.0"), jetstream.WithPurgeKeep(3)))
	equal(js.state(stream).Subjects, map[string]uint64{"g.0": 3, "g.2": 10})
	check(stream.Purge(js.ctx, jetstream.WithPurgeSequence(29)))
	equal(js.state(stream).Msgs, uint64(1))
	check(stream.Purge(js.ctx))
	state := js.state(stream)
	equal([]uint64{state.Msgs, state.FirstSeq, state.LastSeq}, []uint64{0, 31, 30})
	equal(js.publish("g.0", "").Sequence, uint64(31))
}

func pull(js session) {
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"w.>"}})
	js.fill("w.a", 300)
	consumer := js.consumer(stream, jetstream.ConsumerConfig{Durable: "D", AckPolicy: jetstream.AckExplicitPolicy})
	var got []jetstream.Msg
	take := func(msg jetstream.Msg) {
		got = append(got, msg)
		check(msg.Ack())
	}
	for len(got) < 100 {
		for _, msg := range fetch(consumer, 20, wait) {
			take(msg)
		}
	}
	meta := must(got[41].Metadata())
	equal([]any{meta.Stream, meta.Consumer, meta.NumDelivered, meta.Sequence.Stream, meta.Sequence.Consumer, meta.NumPending},
		[]any{"S", "D", uint64(1), uint64(42), uint64(42), uint64(258)})
	batch := must(consumer.FetchNoWait(50))
	for msg := range batch.Messages() {
		take(msg)
	}
	check(batch.Error())
	// As they come, with requests for more of them in between.
	messages := must(consumer.Messages(jetstream.PullMaxMessages(30)))
	for len(got) < 200 {
		take(must(messages.Next(jetstream.NextMaxWait(wait))))
	}
	messages.Stop()
	equal(bodies(got), upTo(200))
	other := js.consumer(stream, jetstream.ConsumerConfig{Durable: "E", AckPolicy: jetstream.AckNonePolicy})
	all := make(chan int, 300)
	consuming := must(other.Consume(func(msg jetstream.Msg) { all <- number(msg) }, jetstream.PullMaxMessages(40)))
	for i := range 300 {
		select {
		case got := <-all:
			equal(got, i)
		case <-time.After(wait):
			panic(errors.New("messages are missing"))
		}
	}
	consuming.Stop()
	bytes := js.consumer(stream, jetstream.ConsumerConfig{Durable: "F", AckPolicy: jetstream.AckNonePolicy})
	count := 0
	for range must(bytes.FetchBytes(1000, jetstream.FetchMaxWait(time.Second))).Messages() {
		count++
	}
	if count < 5 || count > 40 {
		panic(fmt.Errorf("%d messages in 1000 bytes", count))
	}
	empty := js.consumer(stream, jetstream.ConsumerConfig{FilterSubject: "w.none"})
	equal(len(fetch(empty, 1, 200*time.Millisecond)), 0)
}

func acknowledging(js session) {
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"a"}})
	js.fill("a", 5)
	// One at a time, so that what comes next is what came back.
	consumer := js.consumer(stream, jetstream.ConsumerConfig{
		Durable: "D", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Second, MaxDeliver: 3, MaxAckPending: 1})
	take := func(sequence, delivered uint64) jetstream.Msg {
		msg := must(consumer.Next(jetstream.FetchMaxWait(wait)))
		meta := must(msg.Metadata())
		equal([]uint64{meta.Sequence.Stream, meta.NumDelivered}, []uint64{sequence, delivered})
		return msg
	}
	check(take(1, 1).DoubleAck(js.ctx))
	equal(must(consumer.Info(js.ctx)).AckFloor.Stream, uint64(1))
	// Refused: it comes at once, then after a delay, and then no more.
	check(take(2, 1).Nak())
	check(take(2, 2).NakWithDelay(200 * time.Millisecond))
	check(take(2, 3).Nak())
	// Not acknowledged in time: it comes again. Still worked on: it does not.
	take(3, 1)
	third := take(3, 2)
	waiting := make(chan error, 1)
	go func() { waiting <- ignore(consumer.Next(jetstream.FetchMaxWait(1500 * time.Millisecond))) }()
	for range 8 {
		time.Sleep(200 * time.Millisecond)
		check(third.InProgress())
	}
	is(<-waiting, nats.ErrTimeout)
	check(third.DoubleAck(js.ctx))
	check(take(4, 1).TermWithReason("no more of it"))
	check(take(5, 1).DoubleAck(js.ctx))
	info := must(consumer.Info(js.ctx))
	equal([]any{info.NumAckPending, info.NumPending, info.AckFloor.Stream}, []any{0, uint64(0), uint64(5)})
	is(ignore(consumer.Next(jetstream.FetchMaxWait(1200*time.Millisecond))), nats.ErrTimeout)
}

func ordered(js session) {
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"o.*"}})
	js.fill("o.a", 3000)
	consumer := must(stream.OrderedConsumer(js.ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{"o.a"}}))
	messages := must(consumer.Messages(jetstream.PullHeartbeat(500*time.Millisecond), jetstream.PullExpiry(2*time.Second)))
	defer messages.Stop()
	for i := range 3000 {
		equal(number(must(messages.Next(jetstream.NextMaxWait(wait)))), i)
	}
	// The consumer goes: another one goes on behind the last message.
	check(stream.DeleteConsumer(js.ctx, consumer.CachedInfo().Name))
	js.publish("o.a", "3000")
	equal(number(must(messages.Next(jetstream.NextMaxWait(wait)))), 3000)
	last := must(stream.OrderedConsumer(js.ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverLastPolicy}))
	equal(bodies(fetch(last, 1, wait)), []int{3000})
}

func push(js session) {
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"q"}})
	must(js.CreatePushConsumer(js.ctx, "S", jetstream.ConsumerConfig{
		Durable: "D", AckPolicy: jetstream.AckExplicitPolicy, DeliverSubject: "to.workers", DeliverGroup: "workers"}))
	arrived := make(chan [2]int, 300)
	var connections []*nats.Conn
	for i := range 3 {
		nc := js.server.connect()
		connections = append(connections, nc)
		consumer := must(must(jetstream.New(nc)).PushConsumer(js.ctx, "S", "D"))
		must(consumer.Consume(func(msg jetstream.Msg) {
			arrived <- [2]int{i, number(msg)}
			msg.Ack()
		}))
		check(nc.Flush())
	}
	js.fill("q", 300)
	gather(arrived, 300, 3)
	group := must(js.PushConsumer(js.ctx, "S", "D"))
	until("all acknowledged", func() bool { return must(group.Info(js.ctx)).AckFloor.Stream == 300 })
	equal(must(group.Info(js.ctx)).PushBound, true)
	for _, nc := range connections {
		nc.Close()
	}
	until("no longer bound", func() bool { return !must(group.Info(js.ctx)).PushBound })

	single := must(js.CreatePushConsumer(js.ctx, stream.CachedInfo().Config.Name, jetstream.ConsumerConfig{
		Durable: "E", AckPolicy: jetstream.AckAllPolicy, DeliverSubject: "to.me", IdleHeartbeat: 500 * time.Millisecond,
		FlowControl: true}))
	all := make(chan jetstream.Msg, 300)
	consuming := must(single.Consume(func(msg jetstream.Msg) { all <- msg }))
	defer consuming.Stop()
	for i := range 300 {
		select {
		case msg := <-all:
			equal(number(msg), i)
			if i == 299 {
				check(msg.Ack())
			}
		case <-time.After(wait):
			panic(errors.New("messages are missing"))
		}
	}
	until("all acknowledged at once", func() bool { return must(single.Info(js.ctx)).AckFloor.Stream == 300 })
}

// More than a consumer is given before it has said that it keeps up.
func flowControl(js session) {
	const count = 2000
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"f"}})
	filler := bytes.Repeat([]byte("x"), 8192)
	var futures []jetstream.PubAckFuture
	for _, text := range numbers(count) {
		futures = append(futures, must(js.PublishAsync("f", append([]byte(text+" "), filler...))))
	}
	for _, future := range futures {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			panic(err)
		case <-time.After(wait):
			panic(errors.New("an acknowledgement is missing"))
		}
	}
	watching := js.server.connect()
	defer watching.Close()
	answers := must(watching.SubscribeSync("$JS.FC.>"))
	check(watching.Flush())
	consumer := must(js.CreatePushConsumer(js.ctx, stream.CachedInfo().Config.Name, jetstream.ConsumerConfig{
		Durable: "D", AckPolicy: jetstream.AckAllPolicy, DeliverSubject: "to.me", MaxAckPending: -1,
		IdleHeartbeat: 500 * time.Millisecond, FlowControl: true}))
	all := make(chan jetstream.Msg, count)
	consuming := must(consumer.Consume(func(msg jetstream.Msg) { all <- msg }))
	defer consuming.Stop()
	for i := range count {
		select {
		case msg := <-all:
			text, _, _ := bytes.Cut(msg.Data(), []byte(" "))
			equal(string(text), strconv.Itoa(i))
			if i == count-1 {
				check(msg.DoubleAck(js.ctx))
			}
		case <-time.After(wait):
			panic(errors.New("messages are missing"))
		}
	}
	// The library answers what asks it whether it keeps up.
	must(answers.NextMsg(wait))
	equal(must(consumer.Info(js.ctx)).AckFloor.Stream, uint64(count))
}

func workQueue(js session) {
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"jobs.*"}, Retention: jetstream.WorkQueuePolicy})
	js.fill("jobs.a", 200)
	js.consumer(stream, jetstream.ConsumerConfig{Durable: "D", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "jobs.*"})
	arrived := make(chan [2]int, 200)
	var group sync.WaitGroup
	for i := range 2 {
		nc := js.server.connect()
		defer nc.Close()
		consumer := must(must(jetstream.New(nc)).Consumer(js.ctx, "S", "D"))
		group.Go(func() {
			for {
				batch, err := consumer.Fetch(5, jetstream.FetchMaxWait(2*time.Second))
				if err != nil {
					return
				}
				count := 0
				for msg := range batch.Messages() {
					if msg.DoubleAck(js.ctx) == nil {
						count++
						arrived <- [2]int{i, number(msg)}
					}
				}
				if count == 0 {
					return
				}
			}
		})
	}
	gather(arrived, 200, 2)
	group.Wait()
	equal(js.state(stream).Msgs, uint64(0))
	other := jetstream.ConsumerConfig{Durable: "E", FilterSubject: "jobs.a", AckPolicy: jetstream.AckExplicitPolicy}
	refused(ignore(stream.CreateConsumer(js.ctx, other)), 10100)
	other.AckPolicy = jetstream.AckNonePolicy
	refused(ignore(stream.CreateConsumer(js.ctx, other)), 10084)
}

// Twenty workers, of which five die with jobs in hand: another one gets those, and no job is lost.
func failingWorkers(js session) {
	const jobs = 1000
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"jobs.*"}, Retention: jetstream.WorkQueuePolicy})
	js.fill("jobs.a", jobs)
	consumer := js.consumer(stream, jetstream.ConsumerConfig{
		Durable: "D", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second})
	ctx, stop := context.WithCancel(js.ctx)
	defer stop()
	confirmed := make(chan int, jobs)
	var abandoned atomic.Int32
	for i := range 20 {
		nc := js.server.connect()
		defer nc.Close()
		consumer := must(must(jetstream.New(nc)).Consumer(js.ctx, "S", "D"))
		life := -1
		if i < 5 {
			life = 1 + mathrand.IntN(29)
		}
		go func() {
			for ctx.Err() == nil {
				batch, err := consumer.Fetch(5, jetstream.FetchMaxWait(500*time.Millisecond))
				if err != nil {
					return
				}
				for msg := range batch.Messages() {
					if life--; life == 0 {
						abandoned.Add(1)
						nc.Close()
						return
					}
					if msg.DoubleAck(js.ctx) == nil {
						confirmed <- number(msg)
					}
				}
			}
		}()
	}
	done := map[int]bool{}
	for len(done) < jobs {
		select {
		case job := <-confirmed:
			done[job] = true
		case <-time.After(wait):
			panic(fmt.Errorf("%d jobs are lost", jobs-len(done)))
		}
	}
	equal(abandoned.Load(), int32(5))
	equal(js.state(stream).Msgs, uint64(0))
	equal(must(consumer.Info(js.ctx)).NumAckPending, 0)
}

func interest(js session) {
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"i"}, Retention: jetstream.InterestPolicy})
	equal(js.publish("i", "nobody").Sequence, uint64(1))
	equal(js.state(stream).Msgs, uint64(0))
	one := js.consumer(stream, jetstream.ConsumerConfig{Durable: "ONE", AckPolicy: jetstream.AckExplicitPolicy})
	two := js.consumer(stream, jetstream.ConsumerConfig{Durable: "TWO", AckPolicy: jetstream.AckExplicitPolicy})
	js.fill("i", 10)
	for _, msg := range fetch(one, 10, wait) {
		check(msg.DoubleAck(js.ctx))
	}
	equal(js.state(stream).Msgs, uint64(10))
	for _, msg := range fetch(two, 10, wait)[:4] {
		check(msg.DoubleAck(js.ctx))
	}
	equal(js.state(stream).Msgs, uint64(6))
	check(stream.DeleteConsumer(js.ctx, "TWO"))
	until("nobody is interested", func() bool { return js.state(stream).Msgs == 0 })
}

func consumers(js session) {
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"c.>"}})
	for i, text := range numbers(6) {
		js.publish("c."+strconv.Itoa(i%2), text)
	}
	config := jetstream.ConsumerConfig{
		Durable: "D", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "c.1", Metadata: map[string]string{"k": "v"}}
	consumer := js.consumer(stream, config)
	created := consumer.CachedInfo()
	equal([]any{created.Name, created.Stream, created.NumPending}, []any{"D", "S", uint64(3)})
	equal(must(consumer.Info(js.ctx)).Config, created.Config)
	js.consumer(stream, jetstream.ConsumerConfig{
		Name: "E", FilterSubjects: []string{"c.0", "c.1"}, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy})
	pending := map[string]uint64{}
	for info := range stream.ListConsumers(js.ctx).Info() {
		pending[info.Name] = info.NumPending
	}
	equal(pending, map[string]uint64{"D": 3, "E": 2})
	changed := config
	changed.Description = "changed"
	is(ignore(stream.CreateConsumer(js.ctx, changed)), jetstream.ErrConsumerExists)
	equal(must(stream.UpdateConsumer(js.ctx, changed)).CachedInfo().Config.Description, "changed")
	is(ignore(stream.UpdateConsumer(js.ctx, jetstream.ConsumerConfig{Durable: "NONE"})), jetstream.ErrConsumerDoesNotExist)
	for _, one := range []struct {
		config jetstream.ConsumerConfig
		first  int
	}{
		{jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverLastPolicy}, 5},
		{jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: 3}, 2},
		{jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubject: "c.>"}, 4},
	} {
		equal(bodies(fetch(js.consumer(stream, one.config), 1, wait)), []int{one.first})
	}
	bare := fetch(js.consumer(stream, jetstream.ConsumerConfig{HeadersOnly: true}), 1, wait)[0]
	equal([]string{string(bare.Data()), bare.Headers().Get("Nats-Msg-Size")}, []string{"", "1"})

	paused := must(stream.PauseConsumer(js.ctx, "D", time.Now().Add(time.Hour)))
	equal([]bool{paused.Paused, must(consumer.Info(js.ctx)).Paused}, []bool{true, true})
	equal(len(fetch(consumer, 1, 300*time.Millisecond)), 0)
	equal(must(stream.ResumeConsumer(js.ctx, "D")).Paused, false)
	equal(bodies(fetch(consumer, 3, wait)), []int{1, 3, 5})
	equal(must(stream.ResetConsumerToSequence(js.ctx, "D", 4)).ResetSeq, uint64(4))
	equal(bodies(fetch(consumer, 2, wait)), []int{3, 5})
	check(stream.DeleteConsumer(js.ctx, "D"))
	is(ignore(stream.Consumer(js.ctx, "D")), jetstream.ErrConsumerNotFound)
	is(stream.DeleteConsumer(js.ctx, "D"), jetstream.ErrConsumerNotFound)
	is(ignore(js.CreateConsumer(js.ctx, "NONE", config)), jetstream.ErrStreamNotFound)
	// Without anybody who asks, it goes by itself.
	js.consumer(stream, jetstream.ConsumerConfig{Name: "BRIEF", InactiveThreshold: 200 * time.Millisecond})
	until("an idle consumer goes", func() bool {
		for name := range stream.ConsumerNames(js.ctx).Name() {
			if name == "BRIEF" {
				return false
			}
		}
		return true
	})
}

func account(js session) {
	before := must(js.AccountInfo(js.ctx))
	stream := js.stream(jetstream.StreamConfig{Name: "F", Subjects: []string{"f"}})
	js.stream(jetstream.StreamConfig{Name: "M", Subjects: []string{"m"}, Storage: jetstream.MemoryStorage})
	js.consumer(stream, jetstream.ConsumerConfig{Durable: "D"})
	must(js.Publish(js.ctx, "f", make([]byte, 1000)))
	must(js.Publish(js.ctx, "m", make([]byte, 2000)))
	info := must(js.AccountInfo(js.ctx))
	equal([]int{info.Streams, info.Consumers, info.Limits.MaxStreams, info.Limits.MaxConsumers}, []int{2, 1, -1, -1})
	if info.Store < 1000 || info.Memory < 2000 || info.API.Total <= before.API.Total {
		panic(fmt.Errorf("%+v", info))
	}
	is(ignore(js.Stream(js.ctx, "NONE")), jetstream.ErrStreamNotFound)
	equal(must(js.AccountInfo(js.ctx)).API.Errors, info.API.Errors+1)
}

func update[T any](updates <-chan T) T {
	select {
	case one := <-updates:
		return one
	case <-time.After(wait):
		panic(errors.New("an update is missing"))
	}
}

func keyValue(js session) {
	is(ignore(js.KeyValue(js.ctx, "NONE")), jetstream.ErrBucketNotFound)
	kv := must(js.CreateKeyValue(js.ctx, jetstream.KeyValueConfig{Bucket: "K", History: 5}))
	for i, pair := range [][2]string{{"a", "1"}, {"a", "2"}, {"b.c", "3"}} {
		equal(must(kv.PutString(js.ctx, pair[0], pair[1])), uint64(i+1))
	}
	entry := must(kv.Get(js.ctx, "a"))
	equal([]any{entry.Bucket(), entry.Key(), string(entry.Value()), entry.Revision()}, []any{"K", "a", "2", uint64(2)})
	equal(string(must(kv.GetRevision(js.ctx, "a", 1)).Value()), "1")
	equal(must(kv.Update(js.ctx, "a", []byte("4"), 2)), uint64(4))
	refused(ignore(kv.Update(js.ctx, "a", []byte("5"), 2)), 10071)
	is(ignore(kv.Create(js.ctx, "a", []byte("5"))), jetstream.ErrKeyExists)
	equal(must(kv.Create(js.ctx, "new", []byte("5"))), uint64(5))
	is(ignore(kv.Get(js.ctx, "none")), jetstream.ErrKeyNotFound)

	watcher := must(kv.WatchAll(js.ctx))
	next := func() any {
		entry := update(watcher.Updates())
		if entry == nil {
			return nil
		}
		return fmt.Sprint(entry.Key(), entry.Operation(), entry.Revision())
	}
	put, deleted := jetstream.KeyValuePut, jetstream.KeyValueDelete
	equal([]any{next(), next(), next(), next()},
		[]any{fmt.Sprint("b.c", put, 3), fmt.Sprint("a", put, 4), fmt.Sprint("new", put, 5), nil})
	must(kv.Put(js.ctx, "a", []byte("6")))
	equal(next(), fmt.Sprint("a", put, 6))
	check(kv.Delete(js.ctx, "a", jetstream.LastRevision(6)))
	equal(next(), fmt.Sprint("a", deleted, 7))
	check(watcher.Stop())
	is(ignore(kv.Get(js.ctx, "a")), jetstream.ErrKeyNotFound)
	keys := must(kv.Keys(js.ctx))
	slices.Sort(keys)
	equal(keys, []string{"b.c", "new"})
	var values []string
	for _, entry := range must(kv.History(js.ctx, "a")) {
		values = append(values, string(entry.Value()))
	}
	equal(values, []string{"1", "2", "4", "6", ""})
	watcher = must(kv.Watch(js.ctx, "a", jetstream.IncludeHistory()))
	for _, revision := range []uint64{1, 2, 4, 6, 7} {
		equal(update(watcher.Updates()).Revision(), revision)
	}
	equal(next(), nil)
	check(watcher.Stop())
	watcher = must(kv.Watch(js.ctx, ">", jetstream.UpdatesOnly()))
	equal(must(kv.Create(js.ctx, "a", []byte("8"))), uint64(8))
	equal(next(), fmt.Sprint("a", put, 8))
	check(watcher.Stop())
	check(kv.Purge(js.ctx, "a"))
	history := must(kv.History(js.ctx, "a"))
	equal([]any{len(history), history[0].Operation(), history[0].Revision()}, []any{1, jetstream.KeyValuePurge, uint64(9)})
	status := must(kv.Status(js.ctx))
	equal([]any{status.Bucket(), status.Values(), status.History()}, []any{"K", uint64(3), int64(5)})
	check(kv.PurgeDeletes(js.ctx, jetstream.DeleteMarkersOlderThan(-1)))
	equal(must(kv.Status(js.ctx)).Values(), uint64(2))
	check(js.DeleteKeyValue(js.ctx, "K"))
	is(ignore(js.KeyValue(js.ctx, "K")), jetstream.ErrBucketNotFound)
}

func keyValueTTL(js session) {
	gone := func(kv jetstream.KeyValue, key string) func() bool {
		return func() bool { return errors.Is(ignore(kv.Get(js.ctx, key)), jetstream.ErrKeyNotFound) }
	}
	aging := must(js.CreateKeyValue(js.ctx, jetstream.KeyValueConfig{Bucket: "AGE", TTL: 2 * time.Second}))
	must(aging.PutString(js.ctx, "a", "1"))
	equal(string(must(aging.Get(js.ctx, "a")).Value()), "1")
	until("the entry is too old", gone(aging, "a"))
	kv := must(js.CreateKeyValue(js.ctx, jetstream.KeyValueConfig{Bucket: "EACH", LimitMarkerTTL: 2 * time.Second}))
	watcher := must(kv.Watch(js.ctx, "short", jetstream.UpdatesOnly()))
	must(kv.Create(js.ctx, "short", []byte("1"), jetstream.KeyTTL(time.Second)))
	must(kv.PutString(js.ctx, "long", "2"))
	equal(update(watcher.Updates()).Operation(), jetstream.KeyValuePut)
	equal(update(watcher.Updates()).Operation(), jetstream.KeyValuePurge)
	check(watcher.Stop())
	until("the marker is too old", func() bool { return must(kv.Status(js.ctx)).Values() == 1 })
	equal(gone(kv, "short")(), true)
	equal(string(must(kv.Get(js.ctx, "long")).Value()), "2")
}

func objectStore(js session) {
	store := must(js.CreateObjectStore(js.ctx, jetstream.ObjectStoreConfig{Bucket: "O"}))
	megabytes := objectMB()
	data := make([]byte, megabytes*1024*1024)
	rand.Read(data)
	meta := jetstream.ObjectMeta{Name: "large", Description: "large", Headers: nats.Header{"H": {"v"}}}
	put := must(store.Put(js.ctx, meta, bytes.NewReader(data)))
	equal([]any{put.Size, put.Chunks, put.Bucket}, []any{uint64(len(data)), uint32(8 * megabytes), "O"})
	equal(bytes.Equal(must(store.GetBytes(js.ctx, "large")), data), true)
	info := must(store.GetInfo(js.ctx, "large"))
	equal([]string{info.Description, info.Headers.Get("H"), info.Digest}, []string{"large", "v", put.Digest})
	must(store.PutString(js.ctx, "small", "1"))
	must(store.PutString(js.ctx, "small", "22"))
	equal(must(store.GetString(js.ctx, "small")), "22")
	names := func() []string {
		var all []string
		for _, info := range must(store.List(js.ctx)) {
			all = append(all, info.Name)
		}
		slices.Sort(all)
		return all
	}
	equal(names(), []string{"large", "small"})
	watcher := must(store.Watch(js.ctx))
	next := func() any {
		info := update(watcher.Updates())
		if info == nil {
			return nil
		}
		return fmt.Sprint(info.Name, info.Deleted)
	}
	equal([]any{next(), next(), next()}, []any{"largefalse", "smallfalse", nil})
	must(store.PutBytes(js.ctx, "empty", nil))
	equal(next(), "emptyfalse")
	check(store.Delete(js.ctx, "large"))
	equal(next(), "largetrue")
	check(watcher.Stop())
	is(ignore(store.GetBytes(js.ctx, "large")), jetstream.ErrObjectNotFound)
	must(store.AddLink(js.ctx, "to", must(store.GetInfo(js.ctx, "small"))))
	equal(must(store.GetString(js.ctx, "to")), "22")
	equal(names(), []string{"empty", "small", "to"})
	if size := must(store.Status(js.ctx)).Size(); size > 10_000 {
		panic(fmt.Errorf("the chunks are still there: %d bytes", size))
	}
	check(store.Seal(js.ctx))
	equal(must(store.Status(js.ctx)).Sealed(), true)
	refused(ignore(store.PutString(js.ctx, "late", "1")), 10109)
	check(js.DeleteObjectStore(js.ctx, "O"))
	is(ignore(js.ObjectStore(js.ctx, "O")), jetstream.ErrBucketNotFound)
}

func crash(js session) {
	stream := js.stream(jetstream.StreamConfig{Name: "S", Subjects: []string{"r"}})
	js.fill("r", 500)
	consumer := js.consumer(stream, jetstream.ConsumerConfig{
		Durable: "D", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 10 * time.Second})
	confirmed := map[int]bool{}
	for _, msg := range fetch(consumer, 50, wait) {
		check(msg.DoubleAck(js.ctx))
		confirmed[number(msg)] = true
	}
	equal(bodies(fetch(consumer, 5, wait)), []int{50, 51, 52, 53, 54})
	js.server.stop()
	check(js.server.start())
	until("connected again", func() bool { return js.Conn().FlushTimeout(wait) == nil })
	equal(js.state(stream).Msgs, uint64(500))
	// How far nats-server has written the position is a matter of moments; what was not confirmed comes in any case.
	for len(confirmed) < 500 {
		for _, msg := range fetch(consumer, 100, 15*time.Second) {
			check(msg.Ack())
			confirmed[number(msg)] = true
		}
	}
	until("all acknowledged", func() bool { return must(consumer.Info(js.ctx)).AckFloor.Stream == 500 })
}
