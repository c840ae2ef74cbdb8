import CoreGraphics
import CoreText
import Foundation

/// What was found in an image: boxes or a mask, and where the crop lies that the network saw.
public struct Found {
    public let width: Int  // of the image
    public let height: Int
    public let place: Place
    public let boxes: [Box]
    public let mask: Mask?
}

/// Finds boxes, or the class of every pixel, by the network of this package.
public final class Finder {
    private let network: Network
    public var model: Model { network.model }

    public init() async throws { network = try await Network() }

    /// What is in an image file.
    public func find(_ url: URL) throws -> Found { try find(readImage(url, channels: model.channels)) }

    /// What is in an upright image, such as a frame of the camera.
    public func find(_ image: CGImage) throws -> Found { try find(pixels(of: image, channels: model.channels)) }

    private func find(_ image: Pixels) throws -> Found {
        let answer = try network.answer(image)
        let segments = model.task == "segment"
        return try Found(
            width: image.width,
            height: image.height,
            place: placement(width: image.width, height: image.height, Prepare(model: model)),
            boxes: segments ? [] : boxes(of: answer, model),
            mask: segments ? mask(of: answer, model) : nil
        )
    }

    /// A line of text for each box, or for each class of the mask.
    public func lines(_ found: Found) -> [String] {
        if let mask = found.mask {
            return mask.areas.map { String(format: "  %6.2f %%  %4ld  ", 100 * $0.share, $0.index) + model.label($0.index) }
        }
        let place = found.place
        let lines = found.boxes.map { box -> String in
            let sides = String(
                format: "  %.1f %.1f %.1f %.1f",
                place.left + Double(box.left) * place.width,
                place.top + Double(box.top) * place.height,
                place.left + Double(box.right) * place.width,
                place.top + Double(box.bottom) * place.height
            )
            let start = String(format: "  %6.2f %%  %4ld  ", 100 * Double(box.probability), box.index)
            return start + model.label(box.index) + sides
        }
        return lines.isEmpty ? ["  nothing found"] : lines
    }

    /// A picture of what was found: over the upright image, or to lie over it, transparent elsewhere.
    public func picture(_ found: Found, over image: CGImage? = nil) -> CGImage? {
        guard let pen = CGContext(
            data: nil, width: found.width, height: found.height, bitsPerComponent: 8, bytesPerRow: 0,
            space: CGColorSpace(name: CGColorSpace.sRGB)!, bitmapInfo: CGImageAlphaInfo.premultipliedLast.rawValue
        ) else { return nil }
        if let image { pen.draw(image, in: CGRect(x: 0, y: 0, width: found.width, height: found.height)) }
        if let mask = found.mask { draw(mask, found, pen) }
        for box in found.boxes.reversed() { draw(box, found, pen) }  // the most probable one on top
        return pen.makeImage()
    }

    /// Core Graphics counts rows from below.
    private func rect(_ found: Found, _ left: Float, _ top: Float, _ right: Float, _ bottom: Float) -> CGRect {
        let place = found.place
        return CGRect(
            x: place.left + Double(left) * place.width,
            y: Double(found.height) - place.top - Double(bottom) * place.height,
            width: Double(right - left) * place.width,
            height: Double(bottom - top) * place.height
        )
    }

    private func draw(_ box: Box, _ found: Found, _ pen: CGContext) {
        let wide = max(1, Double(max(found.width, found.height)) / 250)
        let frame = rect(found, box.left, box.top, box.right, box.bottom)
        pen.setStrokeColor(color(box.index))
        pen.stroke(frame, width: wide)
        let text = model.label(box.index) + String(format: " %.0f %%", 100 * box.probability)
        let size = max(10, 6 * wide)
        let font = CTFontCreateWithName("Helvetica" as CFString, size, nil)
        let black = CGColor(red: 0, green: 0, blue: 0, alpha: 1)
        let told: [CFString: Any] = [kCTFontAttributeName: font, kCTForegroundColorAttributeName: black]
        let line = CTLineCreateWithAttributedString(CFAttributedStringCreate(nil, text as CFString, told as CFDictionary)!)
        let tall = 1.3 * size
        let x = max(0, Double(frame.minX))
        let y = min(Double(found.height) - tall, Double(frame.maxY))
        pen.setFillColor(color(box.index))
        pen.fill(CGRect(x: x, y: y, width: CTLineGetTypographicBounds(line, nil, nil, nil) + 2 * wide, height: tall))
        pen.textPosition = CGPoint(x: x + wide, y: y + 0.3 * size)
        CTLineDraw(line, pen)
    }

    /// The first class, the background, stays clear.
    private func draw(_ mask: Mask, _ found: Found, _ pen: CGContext) {
        let (x, y) = (1 / Float(mask.columns), 1 / Float(mask.rows))
        pen.setShouldAntialias(false)
        for row in 0..<mask.rows {
            var start = 0
            while start < mask.columns {
                let index = mask.classes[row * mask.columns + start]
                var end = start + 1
                while end < mask.columns, mask.classes[row * mask.columns + end] == index { end += 1 }
                if index > 0 {
                    pen.setFillColor(color(index, alpha: 160 / 255))
                    pen.fill(rect(found, Float(start) * x, Float(row) * y, Float(end) * x, Float(row + 1) * y))
                }
                start = end
            }
        }
        pen.setShouldAntialias(true)
    }
}

/// A color for each class, far from those of its neighbours: lightness 55 %, saturation 85 %.
private func color(_ index: Int, alpha: Double = 1) -> CGColor {
    func part(_ turns: Double) -> Double {
        let hue = turns - turns.rounded(.down)
        let share = hue < 1 / 6.0 ? 6 * hue : hue < 0.5 ? 1 : max(0, 6 * (2 / 3.0 - hue))
        return 0.1675 + 0.765 * share
    }
    let hue = Double(index) * 0.381966
    return CGColor(red: part(hue + 1 / 3.0), green: part(hue), blue: part(hue - 1 / 3.0), alpha: alpha)
}
