// What the server answers, as far as the dashboard reads it. docs/monitoring.md describes all of it.

export interface Varz {
  server_id: string;
  server_name: string;
  version: string;
  go: string;
  host: string;
  port: number;
  auth_required?: boolean;
  tls_required?: boolean;
  max_connections: number;
  max_subscriptions?: number;
  ping_interval: number;
  max_control_line: number;
  max_payload: number;
  max_pending: number;
  write_deadline: number;
  start: string;
  now: string;
  uptime: string;
  mem: number;
  cores: number;
  gomaxprocs: number;
  cpu: number;
  connections: number;
  total_connections: number;
  in_msgs: number;
  out_msgs: number;
  in_bytes: number;
  out_bytes: number;
  slow_consumers: number;
  stale_connections?: number;
  stalled_clients?: number;
  subscriptions: number;
  config_load_time: string;
  jetstream?: { config?: object };
  ringmain?: string;
}

export interface Connection {
  cid: number;
  type: string;
  ip: string;
  port: number;
  start: string;
  stop?: string;
  reason?: string;
  rtt: string;
  uptime: string;
  idle: string;
  pending_bytes: number;
  in_msgs: number;
  out_msgs: number;
  in_bytes: number;
  out_bytes: number;
  stalls?: number;
  subscriptions: number;
  name?: string;
  lang?: string;
  version?: string;
  tls_version?: string;
  authorized_user?: string;
  account?: string;
  subscriptions_list_detail?: Subscription[];
  ringmain?: { worker?: number; waiting_since?: string; behind_since?: string };
}

export interface Connz {
  now: string;
  total: number;
  connections: Connection[] | null;
  ringmain?: { found: number };
}

export interface Subscription {
  account?: string;
  subject: string;
  qgroup?: string;
  sid: string;
  msgs: number;
  max?: number;
  cid: number;
}

export interface Subsz {
  num_subscriptions: number;
  num_cache: number;
  num_inserts: number;
  num_removes: number;
  num_matches: number;
  cache_hit_rate: number;
  max_fanout: number;
  avg_fanout: number;
  total: number;
  subscriptions_list?: Subscription[];
}

export interface AccountStat {
  acc: string;
  name?: string;
  conns: number;
  leafnodes: number;
  num_subscriptions: number;
  sent: { msgs: number; bytes: number };
  received: { msgs: number; bytes: number };
  slow_consumers: number;
}

export interface Accstatz {
  now: string;
  account_statz: AccountStat[] | null;
}

export interface Healthz {
  status: string;
  error?: string;
  errors?: { error: string }[];
}

export interface Origin {
  name: string;
  lag: number;
  last_heard?: string;
  error?: string;
}

export interface StreamRow {
  account: string;
  name: string;
  description?: string;
  subjects: string[];
  num_subject_filters: number;
  storage: string;
  retention: string;
  created: string;
  messages: number;
  bytes: number;
  first_seq: number;
  last_seq: number;
  first_ts?: string;
  last_ts?: string;
  num_subjects: number;
  num_deleted: number;
  consumer_count: number;
  deliveries: number;
  mirror?: Origin;
  sources?: Origin[];
  num_sources?: number;
  max_msgs: number;
  max_bytes: number;
  max_age: number;
  used: number;
  store_errors: number;
  write_error?: string;
}

export interface Streamz {
  now: string;
  disk?: { free_bytes: number; size_bytes: number };
  total: number;
  consumers: number;
  read_only: number;
  store_errors: number;
  unopened: number;
  found: number;
  streams: StreamRow[];
}

export interface ConsumerRow {
  account: string;
  stream: string;
  name: string;
  description?: string;
  type: 'pull' | 'push';
  ack_policy: string;
  delivered: { consumer_seq: number; stream_seq: number };
  num_pending: number;
  undelivered_seconds: number;
  num_ack_pending: number;
  max_ack_pending: number;
  unacknowledged_seconds: number;
  num_redelivered: number;
  redeliveries: number;
  given_up: number;
  num_waiting: number;
  push_bound: boolean;
  paused: boolean;
  stuck: boolean;
  stalled_seconds: number;
  obstacle?: string;
  acks: number;
  ack_p50_seconds?: number;
  ack_p99_seconds?: number;
}

export interface Consumerz {
  now: string;
  total: number;
  left_out: number;
  stuck: number;
  found: number;
  consumers: ConsumerRow[];
}

export interface Jsz {
  memory: number;
  storage: number;
  config?: { max_memory: number; max_storage: number };
  api: { total: number; errors: number };
  streams: number;
  consumers: number;
  messages: number;
  bytes: number;
}
