#!/usr/bin/env python3
"""Asks the real nats-server what src/stream/consumer's recordings say: answers.txt and dialogues.golden.

    scripts/record_consumers.py            both
    scripts/record_consumers.py CASE       prints the dialogues whose name contains CASE, and writes nothing

NATS_SERVER names the server; otherwise it is .deps/py/bin/nats-server. Requests are read from answers.txt itself: a new one needs
only its line, `> SUBJECT BODY`, and any line behind it. Steps are told apart by 60 ms of silence: the machine must not be busy.
Read the diff.
"""

import json, os, re, shutil, socket, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOM = os.path.join(ROOT, 'src/stream/consumer')


class Server:
    def __init__(self, conf=None):
        self.dir=tempfile.mkdtemp(prefix='jsprobe')
        args=[os.environ.get('NATS_SERVER', os.path.join(ROOT, '.deps/py/bin/nats-server')),'-p','-1','-js','-sd',self.dir,'--ports_file_dir',self.dir]
        if conf:
            p=self.dir+'/c.conf'; open(p,'w').write(conf); args+=['-c',p]
        self.p=subprocess.Popen(args,stdout=subprocess.DEVNULL,stderr=open(self.dir+'/log','w'))
        while True:
            f=[x for x in os.listdir(self.dir) if x.endswith('.ports')]
            if f:
                try:
                    d=json.load(open(self.dir+'/'+f[0])); self.port=int(d['nats'][0].rsplit(':',1)[1]); break
                except Exception: pass
            time.sleep(0.02)
    def stop(self): self.p.terminate(); self.p.wait(); shutil.rmtree(self.dir)
class Client:
    def __init__(self, port, **opts):
        self.s=socket.create_connection(('127.0.0.1',port)); self.buf=b''
        self.line(); o=dict(verbose=False,headers=True,no_responders=True); o.update(opts)
        self.send('CONNECT '+json.dumps(o)); self.n=0; self.inbox={}
        self.sub('_I.>','1')
        self.q=[]
    def send(self, l, payload=None):
        b=l.encode() if isinstance(l,str) else l
        b+=b'\r\n'
        if payload is not None:
            b+=(payload.encode() if isinstance(payload,str) else payload)+b'\r\n'
        self.s.sendall(b)
    def sub(self, subj, sid, q=None): self.send(f'SUB {subj} {q+" " if q else ""}{sid}')
    def pub(self, subj, payload=b'', reply=None):
        p=payload.encode() if isinstance(payload,str) else payload
        self.send(f'PUB {subj} {reply+" " if reply else ""}{len(p)}',p)
    def hpub(self, subj, hdr, payload=b'', reply=None):
        p=payload.encode() if isinstance(payload,str) else payload
        h=b'NATS/1.0\r\n'+hdr.encode()+b'\r\n\r\n'
        self.send(f'HPUB {subj} {reply+" " if reply else ""}{len(h)} {len(h)+len(p)}',h+p)
    def fill(self, timeout):
        self.s.settimeout(timeout)
        d=self.s.recv(65536)
        if not d: raise EOFError
        self.buf+=d
    def line(self, timeout=5):
        end=time.time()+timeout
        while b'\r\n' not in self.buf: self.fill(max(0.001,end-time.time()))
        l,self.buf=self.buf.split(b'\r\n',1); return l
    def take(self,n):
        while len(self.buf)<n+2: self.fill(5)
        d,self.buf=self.buf[:n],self.buf[n+2:]; return d
    def msg(self, timeout=1.0):
        if self.q: return self.q.pop(0)
        end=time.time()+timeout
        while True:
            try: l=self.line(max(0.001,end-time.time()))
            except (socket.timeout,TimeoutError,BlockingIOError): return None
            if l.startswith(b'MSG '):
                t=l.decode().split(); n=int(t[-1]); return (t[1], t[3] if len(t)==5 else '', b'', self.take(n), t[2])
            if l.startswith(b'HMSG '):
                t=l.decode().split(); h,n=int(t[-2]),int(t[-1]); d=self.take(n); return (t[1], t[3] if len(t)==6 else '', d[:h], d[h:], t[2])
            if l==b'PING': self.send('PONG')
            elif l.startswith(b'-ERR'): print(l)
    def msgs(self, timeout=0.4):
        r=[]
        while True:
            m=self.msg(timeout)
            if m is None: return r
            r.append(m)
    def req(self, subj, body=b'', timeout=2.0):
        self.n+=1; r=f'_I.r{self.n}'
        if isinstance(body,(dict,list)): body=json.dumps(body)
        self.pub(subj,body,r)
        end=time.time()+timeout
        held=self.q; self.q=[]
        while True:
            m=self.msg(max(0.001,end-time.time()))
            if m is None:
                self.q+=held
                return None
            if m[0]==r:
                self.q+=held
                return m[3] if not m[2] else m[2]+m[3]
            held.append(m)

src=os.path.join(ROOM,'dialogues.txt')
only=sys.argv[1] if len(sys.argv)>1 else None

def record_answers():
    s=Server(); c=Client(s.port); path=os.path.join(ROOM,'answers.txt'); out=[]; made_up=None
    for name,subjects,retention in (('S','s.>','limits'),('W','w.>','workqueue'),('I','i.>','interest')):
        c.req('$JS.API.STREAM.CREATE.'+name,{"name":name,"subjects":[subjects],"retention":retention})
    for line in open(path).read().split('\n'):
        if line.startswith('#') or not line: out.append(line); continue
        if not line.startswith('> '): continue
        subject,_,body=line[2:].partition(' ')
        answer=c.req(subject,body.encode(),timeout=0.3)
        shown='(none)'
        if answer is not None:
            shown=answer.decode()
            if shown.startswith('NATS/1.0'): shown=shown.split('\r\n\r\n',1)[1]
            shown=re.sub(r'"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)"','"T"',shown)
            shown=re.sub(r'"pause_remaining":\d+','"pause_remaining":N',shown)
            if line=='> $JS.API.CONSUMER.CREATE.S {"stream_name":"S","config":{}}':
                made_up=json.loads(answer)['name']
            if made_up: shown=shown.replace(made_up,'NAME')
        out+=[line,shown]
    s.stop()
    open(path,'w').write('\n'.join(out))

if only is None: record_answers()
s=Server(); out=[]
def lines(c, ms, st):
    r=[]
    for to,reply,hdr,payload,sid in c.msgs(ms/1000):
        # to is the subject the client sees; routed subject by sid
        routed=st['sids'].get(sid)
        if routed is None: routed=to
        st['seen'].append((routed,to,reply,hdr,payload))
        parts=[routed]
        if to!=routed: parts.append(to)
        if reply:
            t=reply.split('.')
            if reply.startswith('$JS.ACK.'): st['acks'].append(reply); t.pop(7)
            if reply.startswith('$JS.FC.'): st['fc'].append(reply); t[-1]='XXXX'
            parts.append('.'.join(t))
        h=hdr.decode().rstrip().replace('\r\n','; ')
        if h.startswith('NATS/1.0 '): h=h[9:]
        if h.startswith('NATS/1.0; '): h=h
        m=re.search(r'Nats-Pin-Id: (\w{22})',h)
        if m and m.group(1) not in st['pins']: st['pins'].append(m.group(1))
        if h: parts.append(h)
        p=payload.decode()
        if to.startswith('$JS.EVENT'):
            p=re.sub(r'"id":"\w+"','"id":"ID"',p); p=re.sub(r'"timestamp":"[^"]+"','"timestamp":"T"',p); p=re.sub(r'"ack_time":\d+','"ack_time":N',p); p=re.sub(r'"pause_until":"20[^"]+"','"pause_until":"T"',p)
            m=re.search(r'"pinned_id":"(\w+)"',p)
            if m and m.group(1) not in st['pins']: st['pins'].append(m.group(1))
        if p: parts.append(p)
        l=' '.join(parts)
        l=re.sub(r'(Nats-Consumer-Stalled: \$JS\.FC\.\S+\.)\w{4}',r'\1XXXX',l)
        for i,pin in enumerate(st['pins']): l=l.replace(pin,f'PIN{i+1}')
        r.append(l)
    r.sort(key=lambda l: (l.startswith('$JS.EVENT'), l if l.startswith('$JS.EVENT') else ''))
    return r
def info(c,st,name):
    v=json.loads(c.req(f'$JS.API.CONSUMER.INFO.S.{name}'))
    if 'error' in v: return v['error']['description']
    p=lambda n: f"{v[n]['consumer_seq']}/{v[n]['stream_seq']}"
    l=f"{p('delivered')} {p('ack_floor')} ack {v['num_ack_pending']} re {v['num_redelivered']} wait {v['num_waiting']} left {v['num_pending']}"
    if v.get('push_bound'): l+=' bound'
    if v.get('paused'): l+=' paused'
    return l
case=None; c=None; skip=False
for line in open(src):
    line=line.rstrip('\n')
    if not line.strip() or line.startswith('#'): continue
    if line.startswith('case '):
        if c:
            c.req('$JS.API.STREAM.DELETE.S'); c.s.close()
        skip= only is not None and only not in line
        if skip: c=None; continue
        out.append(line); c=Client(s.port); st=dict(sids={'1':None},seen=[],acks=[],fc=[],pins=[],n=10)
        c.sub('$JS.EVENT.ADVISORY.CONSUMER.>','3'); c.sub('$JS.EVENT.METRIC.CONSUMER.>','4')
        continue
    if skip: continue
    out.append('> '+line)
    cmd,_,rest=line.partition(' ')
    if cmd in('pull','ack','ackraw'):
        t=rest.split(' ')
        if len(t)>1 and t[1]!='-' and t[1] not in st.setdefault('h',{}):
            st['n']+=1; st['h'][t[1]]=str(st['n']); st['sids'][str(st['n'])]=t[1]; c.sub(t[1],str(st['n']))
    quiet=60
    ans=None
    if cmd=='stream':
        cfg={"name":"S","subjects":["s.>"],"retention":rest.split()[0],"storage":"memory"}
        cfg.update(json.loads(rest.partition(' ')[2] or '{}'))
        r=json.loads(c.req('$JS.API.STREAM.CREATE.S',cfg)); ans=r.get('error',{}).get('description','ok')
    elif cmd=='pub':
        subj,_,p=rest.partition(' ')
        h=None
        if p.startswith('['): h,_,p=p[1:].partition('] ')
        for i in range(1):
            if h: c.hpub(subj,h,p)
            else: c.pub(subj,p)
        c.send('PING')
    elif cmd=='create':
        n,_,cfg=rest.partition(' ')
        r=json.loads(c.req(f'$JS.API.CONSUMER.CREATE.S.{n}',{"stream_name":"S","config":json.loads(cfg)})); ans=r.get('error',{}).get('description','ok')
    elif cmd=='api':
        subj,_,b=rest.partition(' ')
        b=b.replace('$SOON',time.strftime('%Y-%m-%dT%H:%M:%S',time.gmtime(time.time()+0.7))+('.%09dZ'%(int((time.time()+0.7)%1*1e9))))
        r=json.loads(c.req('$JS.API.CONSUMER.'+subj,b)); e=r.get('error'); ans=e['description'] if e else 'ok'
    elif cmd=='pull':
        n,reply,*b=rest.split(' ',2)
        b=b[0] if b else ''
        for i,pin in enumerate(st['pins']): b=b.replace(f'PIN{i+1}',pin)
        c.pub(f'$JS.API.CONSUMER.MSG.NEXT.S.{n}',b,reply)
    elif cmd=='ack':
        t=rest.split(' ',2); i=int(t[0])-1; reply=t[1] if len(t)>1 and t[1]!='-' else None; p=t[2] if len(t)>2 else ''
        c.pub(st['acks'][i],p,reply)
    elif cmd=='ackraw':
        t=rest.split(' ',2); c.pub(t[0],t[2] if len(t)>2 else '',t[1] if t[1]!='-' else None)
    elif cmd=='fc':
        i=int(rest.split()[0])-1
        t=rest.split()
        if len(t)>1: c.hpub(st['fc'][i],f'Nats-Last-Consumer: {t[1]}\r\nNats-Last-Stream: {t[2]}')
        else: c.pub(st['fc'][i])
    elif cmd=='wait': quiet=int(rest)
    elif cmd=='info': ans=info(c,st,rest)
    elif cmd=='times':
        v=json.loads(c.req('$JS.API.CONSUMER.INFO.S.'+rest)); says=lambda k: 'yes' if 'last_active' in v[k] else 'no'
        ans=f"delivered {says('delivered')} acknowledged {says('ack_floor')}"
    elif cmd=='remove':
        json.loads(c.req('$JS.API.STREAM.MSG.DELETE.S',{"seq":int(rest)}))
    elif cmd=='purge': json.loads(c.req('$JS.API.STREAM.PURGE.S',json.loads(rest or '{}')))
    elif cmd=='state':
        v=json.loads(c.req('$JS.API.STREAM.INFO.S'))['state']; time.sleep(.05); v=json.loads(c.req('$JS.API.STREAM.INFO.S'))['state']
        ans=f"{v['messages']} {v['first_seq']}-{v['last_seq']}"
    elif cmd=='hear':
        st['n']+=1; sid=str(st['n']); t=rest.split(); st['sids'][sid]=t[0]; c.sub(t[0],sid,t[1] if len(t)>1 else None); st.setdefault('h',{})[t[0]]=sid
    elif cmd=='deaf':
        c.send('UNSUB '+st['h'][rest])
    else: raise SystemExit('? '+line)
    end=time.time()+quiet/1000
    got=[]
    if cmd=='wait':
        while time.time()<end: got+=lines(c,max(5,(end-time.time())*1000) if False else 30,st)
    else: got=lines(c,quiet,st)
    got.sort(key=lambda l: (l.startswith('$JS.EVENT'), l if l.startswith('$JS.EVENT') else ''))
    # API replies on _I are consumed by req; anything queued there meanwhile:
    if ans is not None: out.append('= '+ans)
    out+=['  '+l for l in got]
if c: c.s.close()
s.stop()
text='\n'.join(out)+'\n'
if only: print(text)
else: open(src.replace('.txt','.golden'),'w').write(text)
