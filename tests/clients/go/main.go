// What users of nats.go do, against the server binary named by SERVER_BIN.
//
// With the argument `jetstream`: what users of its jetstream package do.
// Starts and stops that binary itself. Prints `ok NAME` or `FAIL NAME reason` for each scenario.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

const wait = 20 * time.Second

type server struct {
	address   string
	arguments []string
	process   *exec.Cmd
}

type scenario struct {
	name string
	run  func(*server)
}

func (s *server) start() error {
	if s.address == "" {
		probe, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.address = probe.Addr().String()
		probe.Close()
	}
	_, port, _ := net.SplitHostPort(s.address)
	s.process = exec.Command(os.Getenv("SERVER_BIN"), append([]string{"-a", "127.0.0.1", "-p", port}, s.arguments...)...)
	if err := s.process.Start(); err != nil {
		return err
	}
	for range 2000 {
		if probe, err := net.Dial("tcp", s.address); err == nil {
			return probe.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the server does not listen")
}

func (s *server) stop() {
	s.process.Process.Kill()
	s.process.Wait()
}

func (s *server) connect(options ...nats.Option) *nats.Conn {
	nc, err := nats.Connect("nats://"+s.address, options...)
	check(err)
	return nc
}

// A scenario gives up by panicking; main reports it.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func equal(got, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		panic(fmt.Errorf("got %v, wanted %v", got, wanted))
	}
}

func numbers(count int) []string {
	all := make([]string, count)
	for i := range all {
		all[i] = strconv.Itoa(i)
	}
	return all
}

func next(sub *nats.Subscription) *nats.Msg {
	return must(sub.NextMsg(wait))
}

func publishSubscribe(s *server) {
	nc := s.connect()
	defer nc.Close()
	sub := must(nc.SubscribeSync("greet"))
	for _, text := range numbers(1000) {
		check(nc.Publish("greet", []byte(text)))
	}
	for _, text := range numbers(1000) {
		equal(string(next(sub).Data), text)
	}
}

func wildcards(s *server) {
	nc := s.connect()
	defer nc.Close()
	star, rest := must(nc.SubscribeSync("a.*.c")), must(nc.SubscribeSync("a.>"))
	for _, subject := range []string{"a.b.c", "a.b.d", "a.c", "b.b.c", "a.x.c", "a.b.c.d", "a"} {
		check(nc.Publish(subject, nil))
	}
	check(nc.Flush())
	for _, subject := range []string{"a.b.c", "a.x.c"} {
		equal(next(star).Subject, subject)
	}
	for _, subject := range []string{"a.b.c", "a.b.d", "a.c", "a.x.c", "a.b.c.d"} {
		equal(next(rest).Subject, subject)
	}
	if _, err := star.NextMsg(10 * time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
		panic(fmt.Errorf("one message too many: %v", err))
	}
}

func queueGroups(s *server) {
	var lock sync.Mutex
	got := make([][]int, 3)
	arrived := make(chan struct{}, 1000)
	for i := range got {
		worker := s.connect()
		defer worker.Close()
		must(worker.QueueSubscribe("jobs", "workers", func(msg *nats.Msg) {
			lock.Lock()
			got[i] = append(got[i], must(strconv.Atoi(string(msg.Data))))
			lock.Unlock()
			arrived <- struct{}{}
		}))
		check(worker.Flush())
	}
	nc := s.connect()
	defer nc.Close()
	for _, text := range numbers(600) {
		check(nc.Publish("jobs", []byte(text)))
	}
	for range 600 {
		select {
		case <-arrived:
		case <-time.After(wait):
			panic(errors.New("messages are missing"))
		}
	}
	lock.Lock()
	defer lock.Unlock()
	all := slices.Concat(got...)
	slices.Sort(all)
	for i := range 600 {
		equal(all[i], i)
	}
	for i := range got {
		if len(got[i]) == 0 {
			panic(errors.New("a member got nothing"))
		}
	}
}

func requestReply(s *server) {
	service, nc := s.connect(), s.connect()
	defer service.Close()
	defer nc.Close()
	must(service.Subscribe("double", func(msg *nats.Msg) { check(msg.Respond(append(msg.Data, msg.Data...))) }))
	check(service.Flush())
	var group sync.WaitGroup
	var wrong atomic.Int32
	for _, text := range numbers(200) {
		group.Go(func() {
			answer, err := nc.Request("double", []byte(text), wait)
			if err != nil || string(answer.Data) != text+text {
				wrong.Add(1)
			}
		})
	}
	group.Wait()
	equal(wrong.Load(), int32(0))
	old := s.connect(nats.UseOldRequestStyle())
	defer old.Close()
	equal(string(must(old.Request("double", []byte("x"), wait)).Data), "xx")
}

func noResponders(s *server) {
	nc := s.connect()
	defer nc.Close()
	if _, err := nc.Request("nobody.home", nil, wait); !errors.Is(err, nats.ErrNoResponders) {
		panic(fmt.Errorf("not the expected error: %v", err))
	}
}

func headers(s *server) {
	nc := s.connect()
	defer nc.Close()
	sub := must(nc.SubscribeSync("h"))
	for _, body := range []string{"body", ""} {
		sent := nats.NewMsg("h")
		sent.Data = []byte(body)
		sent.Header.Add("Trace", "abc-123")
		sent.Header.Add("Trace", "second value")
		sent.Header.Set("Content-Type", "text/plain; charset=utf-8")
		sent.Header.Set("Long", strings.Repeat("x", 3000))
		check(nc.PublishMsg(sent))
		got := next(sub)
		equal(got.Header, sent.Header)
		equal(string(got.Data), body)
	}
}

func largePayload(s *server) {
	nc, other := s.connect(), s.connect()
	defer nc.Close()
	defer other.Close()
	sub := must(other.SubscribeSync("large"))
	check(other.Flush())
	equal(nc.MaxPayload(), int64(1024*1024))
	payload := make([]byte, nc.MaxPayload())
	rand.Read(payload)
	for range 4 {
		check(nc.Publish("large", payload))
	}
	for range 4 {
		if !bytes.Equal(next(sub).Data, payload) {
			panic(errors.New("payload changed on its way"))
		}
	}
	if err := nc.Publish("large", append(payload, 0)); !errors.Is(err, nats.ErrMaxPayload) {
		panic(fmt.Errorf("a payload over the limit: %v", err))
	}
}

func drain(s *server) {
	publisher := s.connect()
	defer publisher.Close()
	closed := make(chan struct{})
	nc := s.connect(nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	var got atomic.Int32
	must(nc.Subscribe("d", func(*nats.Msg) {
		time.Sleep(time.Millisecond)
		got.Add(1)
	}))
	check(nc.Flush())
	for range 100 {
		check(publisher.Publish("d", nil))
	}
	check(publisher.Flush())
	check(nc.Flush())
	check(nc.Drain())
	select {
	case <-closed:
	case <-time.After(wait):
		panic(errors.New("not closed after drain"))
	}
	equal(got.Load(), int32(100))
}

func flush(s *server) {
	nc := s.connect()
	defer nc.Close()
	for range 50 {
		check(nc.Publish("nobody", make([]byte, 1000)))
		check(nc.FlushTimeout(wait))
	}
	if must(nc.RTT()) <= 0 {
		panic(errors.New("no round-trip time"))
	}
}

func manySubjects(s *server) {
	nc := s.connect()
	defer nc.Close()
	var subs []*nats.Subscription
	for _, text := range numbers(2000) {
		subs = append(subs, must(nc.SubscribeSync("many."+text+".subject")))
	}
	for _, text := range numbers(2000) {
		check(nc.Publish("many."+text+".subject", []byte(text)))
	}
	for i, sub := range subs {
		equal(string(next(sub).Data), strconv.Itoa(i))
		check(sub.Unsubscribe())
	}
	check(nc.Flush())
}

func unsubscribeAfter(s *server) {
	nc := s.connect()
	defer nc.Close()
	sub := must(nc.SubscribeSync("limited"))
	check(sub.AutoUnsubscribe(5))
	for _, text := range numbers(20) {
		check(nc.Publish("limited", []byte(text)))
	}
	check(nc.Flush())
	for _, text := range numbers(5) {
		equal(string(next(sub).Data), text)
	}
	if _, err := sub.NextMsg(wait); !errors.Is(err, nats.ErrMaxMessages) && !errors.Is(err, nats.ErrBadSubscription) {
		panic(fmt.Errorf("not the end: %v", err))
	}
	equal(nc.Stats().InMsgs, uint64(5))
}

// A service of three instances that is found, asked, and tells how often; then one of them stops.
func services(s *server) {
	nc := s.connect()
	defer nc.Close()
	increment := micro.HandlerFunc(func(request micro.Request) {
		if number, err := strconv.Atoi(string(request.Data())); err == nil {
			check(request.Respond([]byte(strconv.Itoa(number + 1))))
		} else {
			check(request.Error("400", "no number", nil))
		}
	})
	var instances []micro.Service
	ids := map[string]bool{}
	for range 3 {
		connection := s.connect()
		defer connection.Close()
		service := must(micro.AddService(connection, micro.Config{Name: "adder", Version: "1.2.3", Description: "adds one"}))
		check(service.AddGroup("math").AddEndpoint("increment", increment))
		check(connection.Flush())
		instances = append(instances, service)
		ids[service.Info().ID] = true
	}
	for i := range 90 {
		equal(string(must(nc.Request("math.increment", []byte(strconv.Itoa(i)), wait)).Data), strconv.Itoa(i+1))
	}
	refused := must(nc.Request("math.increment", []byte("x"), wait))
	equal([]string{refused.Header.Get(micro.ErrorCodeHeader), refused.Header.Get(micro.ErrorHeader)}, []string{"400", "no number"})
	askAll := func(verb micro.Verb, name string, count int) (answers []micro.Stats) {
		inbox := must(nc.SubscribeSync(nc.NewInbox()))
		check(nc.PublishRequest(must(micro.ControlSubject(verb, name, "")), inbox.Subject, nil))
		for range count {
			var answer micro.Stats
			check(json.Unmarshal(next(inbox).Data, &answer))
			answers = append(answers, answer)
		}
		return answers
	}
	for _, verb := range []micro.Verb{micro.PingVerb, micro.InfoVerb} {
		found := map[string]bool{}
		for _, answer := range askAll(verb, "adder", 3) {
			found[answer.ID] = true
		}
		equal(found, ids)
	}
	requests, failures := 0, 0
	for _, answer := range askAll(micro.StatsVerb, "adder", 3) {
		if answer.Endpoints[0].NumRequests == 0 {
			panic(errors.New("an instance was never asked"))
		}
		requests += answer.Endpoints[0].NumRequests
		failures += answer.Endpoints[0].NumErrors
	}
	equal([]int{requests, failures}, []int{91, 1})
	gone := must(micro.ControlSubject(micro.PingVerb, "adder", instances[2].Info().ID))
	must(nc.Request(gone, nil, wait))
	check(instances[2].Stop())
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		if _, err := nc.Request(gone, nil, wait); errors.Is(err, nats.ErrNoResponders) {
			break
		} else if time.Now().After(end) {
			panic(errors.New("the instance that was stopped still answers"))
		}
	}
	equal(len(askAll(micro.PingVerb, "", 2)), 2)
}

func reconnect(s *server) {
	back := make(chan struct{}, 1)
	nc := s.connect(nats.ReconnectWait(50*time.Millisecond), nats.MaxReconnects(-1),
		nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	defer nc.Close()
	sub := must(nc.SubscribeSync("again"))
	check(nc.Publish("again", []byte("before")))
	equal(string(next(sub).Data), "before")
	s.stop()
	check(s.start())
	select {
	case <-back:
	case <-time.After(wait):
		panic(errors.New("did not reconnect"))
	}
	check(nc.Flush())
	check(nc.Publish("again", []byte("after")))
	equal(string(next(sub).Data), "after")
}

func main() {
	scenarios := []scenario{
		{"publish_subscribe", publishSubscribe}, {"wildcards", wildcards}, {"queue_groups", queueGroups},
		{"request_reply", requestReply}, {"no_responders", noResponders}, {"headers", headers},
		{"large_payload", largePayload}, {"drain", drain}, {"flush", flush}, {"many_subjects", manySubjects},
		{"unsubscribe_after", unsubscribeAfter}, {"services", services}, {"reconnect", reconnect},
	}
	s := &server{}
	if len(os.Args) > 1 && os.Args[1] == "jetstream" {
		store := must(os.MkdirTemp("", "client-"))
		defer os.RemoveAll(store)
		s.arguments = []string{"-js", "-sd", store}
		scenarios = jetstreamScenarios()
	}
	if play(s, scenarios) > 0 {
		defer os.Exit(1)
	}
}

// Returns how many failed.
func play(s *server, scenarios []scenario) int {
	check(s.start())
	defer s.stop()
	failed := 0
	for _, scenario := range scenarios {
		func() {
			defer func() {
				if reason := recover(); reason != nil {
					failed++
					fmt.Printf("FAIL %s %v\n", scenario.name, reason)
				}
			}()
			scenario.run(s)
			fmt.Printf("ok %s\n", scenario.name)
		}()
	}
	return failed
}
