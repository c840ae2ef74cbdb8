import Foundation

/// 8-bit pixels, row by row, `channels` bytes each: RGB or grey.
struct Pixels {
    let width: Int
    let height: Int
    let channels: Int
    var bytes: [UInt8]
}

/// An image becomes the network's input exactly as the model says. The resampling repeats Pillow's arithmetic for 8-bit
/// images: two passes, columns first, weights with 22 fractional bits, rounded to bytes after each pass. (Pillow 13 takes
/// rows first where that is cheaper: then a byte may differ by one.)
struct Prepare {
    let model: Model
    private static let bits = 22
    private static let half = 1 << 21

    private struct Axis {
        var first: [Int] = []
        var weights: [[Int]] = []
    }

    /// The numbers of the input, (pixel / 255 - mean) / std in single precision, in the order of its layout; one image.
    func values(_ crop: Pixels) -> [Float] {
        let c = crop.channels
        let count = crop.width * crop.height
        var out = [Float](repeating: 0, count: count * c)
        for channel in 0..<c {
            let mean = Float(model.preprocessing.mean[channel])
            let std = Float(model.preprocessing.std[channel])
            let place = model.input.colors == "BGR" && c == 3 ? 2 - channel : channel
            let table = (0..<256).map { (Float($0) / 255 - mean) / std }
            for i in 0..<count {
                out[model.input.layout == "NHWC" ? i * c + place : place * count + i] = table[Int(crop.bytes[i * c + channel])]
            }
        }
        return out
    }

    /// Resizes an image and cuts the part from it that the network sees.
    func fit(_ image: Pixels) throws -> Pixels {
        let (height, width) = resizedSize(image.height, image.width)
        guard height > 0, width > 0 else { throw Fault(description: "too narrow an image") }
        let resized = acrossRows(acrossColumns(image, width), height)
        let c = image.channels
        var bytes = [UInt8](repeating: 0, count: model.height * model.width * c)
        if model.preprocessing.crop_mode == "border" {
            for i in bytes.indices { bytes[i] = UInt8(whole(255 * model.preprocessing.mean[i % c])) }
        }
        let top = cropStart(height, model.height)
        let left = cropStart(width, model.width)
        let first = max(0, -left)
        let last = min(model.width, width - left)
        for y in max(0, -top)..<min(model.height, height - top) {
            let from = ((y + top) * width + first + left) * c
            let to = (y * model.width + first) * c
            let length = (last - first) * c
            bytes.replaceSubrange(to..<(to + length), with: resized.bytes[from..<(from + length)])
        }
        return Pixels(width: model.width, height: model.height, channels: c, bytes: bytes)
    }

    private func whole(_ x: Double) -> Int { Int(x.rounded(.toNearestOrEven)) }

    /// (height, width) that an image is resized to before the crop is taken.
    func resizedSize(_ h: Int, _ w: Int) -> (Int, Int) {
        let toH = Int(Double(model.height) / model.preprocessing.crop_pct)
        let toW = Int(Double(model.width) / model.preprocessing.crop_pct)
        let mode = model.preprocessing.crop_mode
        if mode == "squash" { return (toH, toW) }
        if mode == "center" && toH == toW { return (toH * h / min(h, w), toH * w / min(h, w)) }
        let ratios = (Double(h) / Double(toH), Double(w) / Double(toW))
        let ratio = mode == "border" ? max(ratios.0, ratios.1) : min(ratios.0, ratios.1)
        return (whole(Double(h) / ratio), whole(Double(w) / ratio))
    }

    /// First row or column of the crop in a resized image; negative where that is smaller.
    func cropStart(_ length: Int, _ wanted: Int) -> Int {
        wanted > length ? -((wanted - length) / 2) : whole(Double(length - wanted) / 2)
    }

    private func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(Double.pi * x) / (Double.pi * x) }

    private func weight(_ x: Double) -> Double {
        let t = abs(x)
        switch model.preprocessing.interpolation {
        case "box": return x > -0.5 && x <= 0.5 ? 1 : 0
        case "bilinear": return max(0, 1 - t)
        case "hamming": return t >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * cos(Double.pi * x))
        case "lanczos": return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0
        default:
            let a = -0.5
            if t < 1 { return ((a + 2) * t - (a + 3)) * t * t + 1 }
            return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0
        }
    }

    private func axis(_ from: Int, _ to: Int) -> Axis {
        var axis = Axis()
        let scale = Double(from) / Double(to)
        if model.preprocessing.interpolation == "nearest" {
            var place = scale * 0.5  // summed up as Pillow does, rounding included
            for _ in 0..<to {
                axis.first.append(min(from - 1, Int(place)))
                axis.weights.append([1 << Prepare.bits])
                place += scale
            }
            return axis
        }
        let reach = ["box": 0.5, "bicubic": 2.0, "lanczos": 3.0][model.preprocessing.interpolation] ?? 1.0
        let stretch = max(scale, 1)
        let support = reach * stretch
        for i in 0..<to {
            let center = (Double(i) + 0.5) * scale
            let start = max(0, Int(center - support + 0.5))
            let end = min(from, Int(center + support + 0.5))
            let exact = (start..<end).map { weight((Double($0) - center + 0.5) * (1 / stretch)) }
            let sum = exact.reduce(0, +)
            axis.first.append(start)
            axis.weights.append(exact.map {
                let share = sum != 0 ? $0 / sum : $0
                return Int((share < 0 ? -0.5 : 0.5) + share * Double(1 << Prepare.bits))
            })
        }
        return axis
    }

    private func byte(_ sum: Int) -> UInt8 { UInt8(min(255, max(0, sum >> Prepare.bits))) }

    private func acrossColumns(_ image: Pixels, _ width: Int) -> Pixels {
        if width == image.width { return image }
        let plan = axis(image.width, width)
        let c = image.channels
        var out = [UInt8](repeating: 0, count: width * image.height * c)
        image.bytes.withUnsafeBufferPointer { bytes in
            for y in 0..<image.height {
                for x in 0..<width {
                    for channel in 0..<c {
                        var sum = Prepare.half
                        var at = (y * image.width + plan.first[x]) * c + channel
                        for w in plan.weights[x] {
                            sum += Int(bytes[at]) * w
                            at += c
                        }
                        out[(y * width + x) * c + channel] = byte(sum)
                    }
                }
            }
        }
        return Pixels(width: width, height: image.height, channels: c, bytes: out)
    }

    private func acrossRows(_ image: Pixels, _ height: Int) -> Pixels {
        if height == image.height { return image }
        let plan = axis(image.height, height)
        let stride = image.width * image.channels
        var out = [UInt8](repeating: 0, count: stride * height)
        image.bytes.withUnsafeBufferPointer { bytes in
            for y in 0..<height {
                for i in 0..<stride {
                    var sum = Prepare.half
                    var at = plan.first[y] * stride + i
                    for w in plan.weights[y] {
                        sum += Int(bytes[at]) * w
                        at += stride
                    }
                    out[y * stride + i] = byte(sum)
                }
            }
        }
        return Pixels(width: image.width, height: height, channels: image.channels, bytes: out)
    }
}
