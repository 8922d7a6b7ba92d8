// BullMQ, in Node.js: sends what lines of JSON on standard input tell (`send`), or works (`work SLOTS`).
// Speaks as benchmarks/peers/sender.py and writes as benchmarks/records.py.
import fs from "node:fs";
import { createRequire } from "node:module";
import readline from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

const require = createRequire(process.env.BENCH_MODULES + "/");
const { Queue, Worker } = require("bullmq");

const address = new URL(process.env.BENCH_URL);
const connection = { host: address.hostname, port: Number(address.port), maxRetriesPerRequest: null };
const now = () => Number(process.hrtime.bigint()) / 1e9;
const FILLER = "Quarterly statement, second reminder; sent on behalf of the billing department of the Northern branch.";

const task = (number, work_s) => ({ number, sent_s: now(), work_s, customer: "customer-000042", note: FILLER });

function* range(numbers) {
  const [first, end] = numbers.length === 1 ? [0, numbers[0]] : numbers;
  for (let number = first; number < end; number++) yield number;
}

const verbs = {
  async one_by_one(queue, { numbers, work_s = 0 }) {
    for (const number of range(numbers)) await queue.add("work", task(number, work_s));
  },
  async bulk(queue, { numbers, work_s = 0 }) {
    await queue.addBulk([...range(numbers)].map((number) => ({ name: "work", data: task(number, work_s) })));
  },
  async paced(queue, { numbers, gaps_s, work_s = 0 }) {
    let due = now();
    let place = 0;
    for (const number of range(numbers)) {
      due += gaps_s[place++];
      await pause(Math.max((due - now()) * 1000, 0));
      await queue.add("work", task(number, work_s));
    }
  },
};

async function send() {
  const queue = new Queue("bench", { connection });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { verb, ...asked } = JSON.parse(line);
    const started = now();
    await verbs[verb](queue, asked);
    process.stdout.write(JSON.stringify({ took_s: now() - started }) + "\n");
  }
  await queue.close();
}

function work(slots) {
  const file = fs.openSync(process.env.BENCH_RECORDS, "a");
  const run = async ({ data }) => {
    const record = Buffer.alloc(24);
    record.writeDoubleLE(data.sent_s, 0);
    record.writeDoubleLE(now(), 8);
    record.writeUInt32LE(Number(process.env.BENCH_WORKER), 16);
    record.writeUInt32LE(data.number, 20);
    fs.writeSync(file, record);
    if (data.work_s) await pause(data.work_s * 1000);
  };
  new Worker("bench", run, { connection, concurrency: slots });
}

const [verb, slots] = process.argv.slice(2);
if (verb === "send") await send();
else work(Number(slots));
